// Replay: a client gets all events since the offset that it names, each once. Also tests what happens after a history
// was deleted.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/told';
const w = await world({ contracts: [join(ROOT, 'tests/js/fixtures/told.toml')] });
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
let logs = 0;
const newLog = () => `l${(logs += 1)}`;
const publish = (log, n, node = first, event = 'entry') => node.publish('told', event, { log, n });
const connect = (node = last) => w.connect({ namespace, user: 'alice' }, node);
const numbers = (events) => events.filter(([event]) => event === 'entry').map(([, { n }]) => n);
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => from + at);

afterEach(() => w.clear());

test('without an offset all that is kept is shown; with one, what came after', async () => {
  const log = newLog();
  for (const n of range(1, 5)) await publish(log, n, w.nodes[n % w.nodes.length]);
  const alice = await connect();
  const { history } = await alice.ask('follow', log);
  assert.deepEqual(numbers(await alice.drain(first)), range(1, 5));
  assert.deepEqual([history.offset, history.complete, history.replayed], [5, true, 5]);
  alice.close();

  await publish(log, 6);
  await publish(log, 7);
  const back = await connect(first);
  const again = await back.ask('follow', { log, since: { epoch: history.epoch, offset: history.offset } });
  assert.deepEqual(numbers(await back.drain(first)), [6, 7]);
  assert.deepEqual([again.history.complete, again.history.replayed, again.history.epoch], [true, 2, history.epoch]);
});

test('what cannot be proven complete says so', async () => {
  const log = newLog();
  for (const n of range(1, 60)) await publish(log, n);
  const alice = await connect();
  const { history } = await alice.ask('follow', { log, since: 0 });
  assert.equal(history.complete, false, 'ten of them are trimmed');
  assert.deepEqual(numbers(await alice.drain(first)), range(11, 60));
  const other = await connect();
  const wrong = await other.ask('follow', { log, since: { epoch: history.epoch + 1, offset: 59 } });
  assert.equal(wrong.history.complete, false, 'an epoch that never was');
});

test('joining under traffic shows everything once and in order, on whichever node', async () => {
  const log = newLog();
  let stop = false;
  let sent = 0;
  const traffic = (async () => {
    while (!stop) await publish(log, (sent += 1), first);
  })();
  for (let round = 0; round < 40; round += 1) {
    const client = await connect(w.nodes[round % w.nodes.length]);
    await client.ask('follow', log);
    const goal = sent + 3;
    await eventually('live events follow', () => numbers(client.inbox).at(-1) >= goal);
    const got = numbers(client.inbox);
    assert.deepEqual(got, range(got[0], got.at(-1)));
    client.close();
  }
  stop = true;
  await traffic;
});

describe('rooms are forgotten', () => {
  const kept = async (log) => {
    const { status, body } = await last.api('GET', `/api/v1/rooms/log:${log}/history?namespace=${encodeURIComponent(namespace)}`);
    assert.equal(status, 200);
    return body.items.length;
  };

  test('after the end of their story, and after a time without events, with their keys', async () => {
    const [ended, idle] = [newLog(), newLog()];
    for (const log of [ended, idle]) await publish(log, 1);
    await publish(ended, 2, first, 'end');
    assert.equal(await kept(ended), 2);
    await eventually('the ended one is forgotten', async () => (await kept(ended)) === 0);
    await eventually('the idle one is forgotten', async () => (await kept(idle)) === 0);
    if (w.redis) {
      await eventually('their keys are gone', async () => {
        const keys = await w.redis.keys();
        return !keys.some((key) => key.includes(`log:${ended}`) || key.includes(`log:${idle}`));
      });
    }
  });
});

describe('a room of connect.join with more events than one page holds', () => {
  const posts = (events) => events.filter(([event]) => event === 'post').map(([, { n }]) => n);

  test('is shown whole, and who misses something is told where no ack tells it', async () => {
    for (let from = 1; from <= 1300; from += 50) {
      const post = (n) => first.publish('told', 'post', { n });
      for (const n of range(from, from + 49)) await post(n);
    }
    const alice = await connect();
    await eventually('the last one arrives', () => posts(alice.inbox).includes(1300));
    assert.deepEqual(await alice.drain(first).then(posts), range(51, 1300));

    assert.deepEqual(await alice.ask('reread', { since: 0 }), { read: true });
    const again = await alice.drain(first);
    assert.deepEqual(posts(again), range(51, 1300));
    const [, told] = again.find(([event]) => event === 'board:incomplete');
    assert.deepEqual([told.room, told.offset, told.complete, told.replayed], ['board', 1300, false, 1250]);
  });
});
