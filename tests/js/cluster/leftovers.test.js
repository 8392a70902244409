// After everything was used, and all nodes have ended or were killed, Redis contains only keys that docs/redis.md
// names, and all of them expire.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

// Hooks go to a port without a listener, so that notices and calls fail and leave their data.
const toml = '\n[presence]\nheartbeat = "500ms"\n\n[hooks.songs]\nurl = "http://127.0.0.1:9/"\nsecret = "a-hook-secret-of-the-tests-0123456789"\n';
const w = await world({ contracts: ['embedded:*'], toml, mode: 'cluster' });

/** The keys in the first column of the tables in docs/redis.md, as patterns. A variable matches any text. */
function documented() {
  const page = readFileSync(join(ROOT, 'docs/redis.md'), 'utf8');
  const rows = page.split('\n').filter((row) => /^\| .*`/.test(row) && /STREAM|STRING|HASH|SET|LIST|several/.test(row.split('|')[2]));
  const names = rows.flatMap((row) => [...row.split('|')[1].matchAll(/`([^`]+)`/g)].map(([, name]) => name));
  const keys = names.filter((name) => name.includes(':'));
  assert.ok(keys.length >= 8, `the page lists keys: ${keys}`);
  const any = '\u0000';
  const pattern = (name) =>
    name
      .replaceAll('<prefix>', 'roomcast')
      .replaceAll(/<[^>]+>|…/g, any)
      // The contract's own names are templates: `{jobId}` is a variable there, and a hash tag in the node's keys.
      .replaceAll(/\{([\w.]+)\}/g, any)
      .replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
      .replaceAll(any, '.+');
  return keys.map((name) => new RegExp(`^${pattern(name)}$`));
}

test('only what the page lists is left, and none of it for ever', async () => {
  const alice = await w.connect({ user: 'alice' });
  const feed = await w.connect({ namespace: '/jobs' }, w.a);
  await feed.ask('subscribe:jobs', { jobId: 'j1' });
  await alice.ask('room:join', { room: 'lobby' });
  await alice.ask('presence:update', 'busy');
  await w.a.own('/', 'generation-g1', 'alice', '1m');
  await alice.ask('join-generation', 'g1');
  for (let progress = 0; progress < 40; progress += 1) {
    const data = { generationId: 'g1', progress, status: 's', currentStep: 'title' };
    await w.nodes[progress % 2].publish('harmonia-songs', 'metadata-generation-progress', data);
  }
  await w.a.publish('jobs-feed', 'job:update', { jobId: 'j1', status: 'x' });
  const body = { contract: 'jobs-feed', event: 'job:update', data: { jobId: 'j1', status: 'y' }, id: 'once' };
  assert.equal((await w.a.api('POST', '/api/v1/events', body)).status, 202);
  await eventually('the keys are written', async () => (await w.redis.keys('subscriptions:*')).length > 0);

  await w.b.stop('SIGKILL');
  await eventually('the dead node is forgotten', async () => {
    const { body: rooms } = await w.a.api('GET', '/api/v1/rooms?namespace=%2F');
    return rooms.items.every(({ name }) => name !== 'lobby');
  });
  await w.a.stop('SIGTERM');

  const patterns = documented();
  for (const key of await w.redis.keys()) {
    assert.ok(patterns.some((pattern) => pattern.test(key)), `docs/redis.md does not list ${key}`);
    const ttl = await w.redis.call('PTTL', key);
    assert.ok(ttl > 0 || ttl === -2, `${key} has no end`);
  }
});
