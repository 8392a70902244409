// Nodes whose settings do not permit them to be in one cluster report the conflict in their readiness, metrics and log.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { binary, Node, ROOT } from '../harness/node.js';
import { start } from '../harness/process.js';
import { Redis } from '../harness/redis.js';

const fixture = (name) => [join(ROOT, 'tests/js/fixtures', name)];
const ending = [];
after(async () => {
  for (const end of ending.reverse()) await end();
});

const redis = await Redis.start();
ending.push(() => redis.stop());

async function node(contracts, env = {}) {
  const started = await Node.start({ contracts, redis, env });
  ending.push(() => started.stop());
  return started;
}

/** Waits until a node reports a conflict in its readiness, its metrics and its log. */
async function tells(node, kind, words) {
  const body = await eventually(`${kind} is told`, async () => {
    const { status, body } = await node.get('/ready');
    assert.equal(status, 200, 'it goes on taking clients');
    return body.status === 'degraded' && body;
  });
  assert.ok(body.reasons.some((reason) => words.every((word) => reason.includes(word))), JSON.stringify(body.reasons));
  assert.ok((await node.metric('roomcast_cluster_conflicts', { kind })) > 0);
  await eventually('the log tells it', () => node.process.lines.some(({ text }) => ['WARN', ...words].every((word) => text.includes(word))));
}

test('two nodes of one id, and nodes of different contracts, are told by each, and by the doctor', async () => {
  const one = await node(fixture('alone/refused.toml'), { ROOMCAST_NODE__ID: 'twin' });
  const same = await node(fixture('alone/refused.toml'), { ROOMCAST_NODE__ID: 'other' });
  assert.equal((await eventually('they know each other', async () => {
    const { body } = await one.get('/ready');
    return body.cluster.nodes === 2 && body;
  })).status, 'ready', 'nodes that fit say nothing');
  await same.stop();

  const twin = await node(fixture('alone/refused.toml'), { ROOMCAST_NODE__ID: 'twin' });
  for (const each of [one, twin]) await tells(each, 'same_id', ['two nodes have the id', 'twin']);
  const { child, lines, done } = start(binary(), ['doctor', one.url, '--json', '--polls', '1', '--skip', 'patience', '--api', one.apiUrl]);
  assert.ok(child);
  await done;
  const finding = JSON.parse(lines.map(({ text }) => text).join('\n')).findings.find(({ check }) => check === 'api.ready');
  assert.equal(finding.level, 'warning');
  assert.match(finding.found, /two nodes have the id "twin"/);
  await twin.stop();
  await eventually('one is well again', async () => (await one.get('/ready')).body.status === 'ready');

  const stranger = await node(fixture('told.toml'), { ROOMCAST_NODE__ID: 'stranger' });
  await tells(one, 'other_contracts', ['other contracts', 'stranger']);
  await tells(stranger, 'other_contracts', ['other contracts', 'twin']);
});
