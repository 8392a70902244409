// A node ends without waiting for Redis longer than necessary, whether Redis is reachable or not.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { freeze } from '../harness/process.js';
import { Redis } from '../harness/redis.js';

const contracts = [join(ROOT, 'tests/js/fixtures/alone/refused.toml')];
const ending = [];
after(async () => {
  for (const end of ending.reverse()) await end();
});

/**
 * Applies `treat` to the Redis of a node that has a client. Returns the time from SIGTERM to the node's end, in
 * milliseconds.
 */
async function leave(treat) {
  const redis = await Redis.start();
  const node = await Node.start({ contracts, redis });
  ending.push(() => redis.stop(), () => node.stop('SIGKILL'));
  const client = await Client.connect(node);
  ending.push(() => client.close());
  await client.ask('join', 'r');
  await treat(redis, node);
  const began = Date.now();
  const end = await node.stop();
  assert.deepEqual(end, { code: 0, signal: null });
  return Date.now() - began;
}

const away = async (node) => await eventually('it is away', async () => (await node.get('/ready')).body.status === 'degraded');

test('a node leaves a Redis that is away, or does not answer, as soon as one that is there', async (t) => {
  const ways = {
    there: async () => {},
    gone: async (redis, node) => (await redis.kill(), await away(node)),
    'gone just now': async (redis) => await redis.kill(),
    silent: async (redis, node) => (await freeze(redis.process), await away(node)),
    'silent since just now': async (redis) => await freeze(redis.process),
  };
  const took = {};
  for (const [way, treat] of Object.entries(ways)) took[way] = await leave(treat);
  t.diagnostic(JSON.stringify(took));
  for (const [way, ms] of Object.entries(took)) assert.ok(ms < took.there + 1_500, `${way}: ${JSON.stringify(took)}`);
});
