// Tests the rest of contract 3: the Redis keys that other services read, and the history that backends read.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { eventually, like, timestamp } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const DAY = 24 * 3600;
const namespace = '/jobs';
const w = await world({ contracts: ['embedded:jobs-feed'] });
const publish = (event, data, params) => w.a.publish('jobs-feed', event, data, params);

afterEach(() => w.clear());

/** Reads the history of a room as a backend does, through the other node. */
async function history(room, query = '') {
  const path = `/api/v1/rooms/${encodeURIComponent(room)}/history?namespace=${encodeURIComponent(namespace)}${query}`;
  const { status, body } = await w.b.api('GET', path);
  assert.equal(status, 200, JSON.stringify(body));
  return body;
}

describe('the history of a job', () => {
  test('is read newest last, with a limit, of every kind of update', async () => {
    await publish('job:update', { jobId: 'h1', status: 'queued', data: 1 });
    await publish('job:progress', { jobId: 'h1', progress: 50 });
    await publish('job:error', { jobId: 'h1', error: 'e' });
    await publish('job:completed', { jobId: 'h1', result: 'r' });
    const all = await history('job:h1');
    const statuses = all.items.map(({ args }) => args[0].status);
    assert.deepEqual(statuses, ['queued', 'in_progress', 'failed', 'completed']);
    const last = await history('job:h1', '&limit=2');
    assert.deepEqual(last.items.map(({ event }) => event), ['job:error', 'job:completed']);
  });

  test('holds a hundred', async () => {
    for (let at = 0; at < 130; at += 1) await publish('job:update', { jobId: 'h2', status: 's', data: at });
    const { items } = await history('job:h2', '&limit=1000');
    assert.deepEqual(items.map(({ args }) => args[0].data), Array.from({ length: 100 }, (_, at) => at + 30));
  });

  test('a room without one is empty', async () => {
    assert.deepEqual((await history('job:never')).items, []);
  });
});

if (w.redis) {
  describe('the keys', () => {
    const ttl = async (key) => Number(await w.redis.call('TTL', key));
    const day = (seconds) => seconds > DAY - 60 && seconds <= DAY;

    test('job-history:{jobId} is a LIST of payloads, newest last, at most 100, for a day', async () => {
      for (let at = 0; at < 110; at += 1) await publish('job:update', { jobId: 'k1', status: 's', data: at });
      const key = 'job-history:k1';
      assert.equal(await w.redis.call('TYPE', key), 'list');
      const list = (await w.redis.call('LRANGE', key, 0, -1)).map((item) => JSON.parse(item));
      assert.equal(list.length, 100);
      like(list.at(-1), { jobId: 'k1', status: 's', data: 109, timestamp });
      assert.equal(list[0].data, 10);
      assert.ok(day(await ttl(key)));
    });

    test('subscriptions:{socketId} is a SET of rooms, client:{socketId} is kept beside it', async () => {
      const client = await w.connect({ namespace, user: 'u1' });
      await client.ask('subscribe:jobs', { jobId: 'k2' });
      await client.ask('subscribe:jobs');
      const key = `subscriptions:${client.id}`;
      await eventually('both rooms are in the set', async () => {
        const rooms = (await w.redis.call('SMEMBERS', key)).sort();
        return rooms.join() === 'all-jobs,job:k2';
      });
      assert.ok(day(await ttl(key)));
      assert.ok(day(await ttl(`client:${client.id}`)));
      assert.notEqual(await w.redis.call('TYPE', `client:${client.id}`), 'none');
      await client.ask('unsubscribe:jobs');
      await eventually('one is left', async () => (await w.redis.call('SMEMBERS', key)).join() === 'job:k2');
      const { id } = client;
      client.close();
      await eventually('the client is gone', async () => (await w.b.metric('roomcast_connections', { nsp: namespace })) === 0);
      assert.ok((await ttl(key)) <= DAY && (await ttl(`client:${id}`)) <= DAY, 'nothing stays for longer than a day');
    });
  });
}
