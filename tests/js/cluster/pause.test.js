// When a node that was suspended runs again, it reports the pause and the number of missed messages.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { freeze } from '../harness/process.js';
import { Redis } from '../harness/redis.js';

const STOPPED_MS = 6_000;
const EVENTS = 20;
const contracts = [join(ROOT, 'tests/js/fixtures/alone/emitter.toml')];

test('the log of a node that was stopped tells for how long, and how many messages it missed', async () => {
  const redis = await Redis.start();
  after(() => redis.stop());
  const [stopped, other] = [await Node.start({ contracts, redis }), await Node.start({ contracts, redis })];
  after(() => Promise.all([stopped.stop(), other.stop()]));
  const knows = async (node) => (await node.get('/ready')).body.cluster.nodes === 2;
  await eventually('both know each other', async () => (await knows(stopped)) && (await knows(other)));
  // An event before the pause must arrive, because a node counts missed messages from the first one that it received.
  const emit = () => other.emit({ namespace: '/', event: 'news', args: [1] });
  await emit();

  await freeze(stopped.process);
  const since = Date.now();
  // Redis would close the connection of a subscriber that does not read. CLIENT KILL does so at once, so that messages
  // are lost.
  await redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
  await eventually('the other node hears again', async () => (await other.get('/ready')).body.status === 'ready');
  for (let n = 0; n < EVENTS; n += 1) await emit();
  await eventually('the node has been stopped for long enough', () => Date.now() - since > STOPPED_MS);
  stopped.process.child.kill('SIGCONT');

  const says = (words) => stopped.process.lines.find(({ text }) => text.includes('WARN') && text.includes(words));
  const first = await eventually('it says that it did not run', () => says('did not run for a while'));
  assert.ok(Number(/paused_seconds=(\d+)/.exec(first.text)[1]) >= 5, first.text);
  const second = await eventually('it says what it missed', () => says('runs again'), 30_000);
  assert.ok(Number(/missed=(\d+)/.exec(second.text)[1]) >= EVENTS, second.text);
});
