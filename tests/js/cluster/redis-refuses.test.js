// If Redis answers but refuses writes, the node reports that in its readiness, its metrics, its log and its answers.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { freePort, Redis } from '../harness/redis.js';

const contracts = [join(ROOT, 'tests/js/fixtures/alone/refused.toml')];
const ending = [];
after(async () => {
  for (const end of ending.reverse()) await end();
});

const ready = async (node) => (await node.get('/ready')).body;
const get = async (node, path) => await node.api('GET', `/api/v1/${path}`);
const says = (node, words) => node.process.lines.some(({ text }) => words.every((word) => text.includes(word)));

/** Two nodes, each with a client in the room `r`. */
async function pair(url) {
  const nodes = [];
  const clients = [];
  for (let at = 0; at < 2; at += 1) {
    const node = await Node.start({ contracts, redis: { url } });
    ending.push(() => node.stop());
    const client = await Client.connect(node);
    ending.push(() => client.close());
    await client.ask('join', 'r');
    nodes.push(node);
    clients.push(client);
  }
  for (const node of nodes) {
    await eventually('each node knows the other', async () => (await ready(node)).cluster.nodes === 2);
    await eventually('and its clients', async () => (await get(node, 'counts?namespace=/')).body.connections === 2);
  }
  return { nodes, clients };
}

async function server(args) {
  const redis = await Redis.start(args);
  ending.push(() => redis.stop());
  return redis;
}

const faults = {
  out_of_memory: {
    word: 'OOM',
    begin: (redis) => redis.call('CONFIG', 'SET', 'maxmemory', '1mb', 'maxmemory-policy', 'noeviction'),
    end: (redis) => redis.call('CONFIG', 'SET', 'maxmemory', '0'),
  },
  no_replicas: {
    word: 'NOREPLICAS',
    begin: (redis) => redis.call('CONFIG', 'SET', 'min-replicas-to-write', '1'),
    end: (redis) => redis.call('CONFIG', 'SET', 'min-replicas-to-write', '0'),
  },
  misconf: {
    word: 'MISCONF',
    async begin(redis) {
      rmSync(redis.dir, { recursive: true });
      await redis.call('CONFIG', 'SET', 'save', '1 1');
      await redis.call('SET', 'x', '1');
      await redis.call('BGSAVE').catch(() => {});
      await eventually('the snapshot fails', async () => await redis.call('SET', 'x', '1').then(() => false, () => true), 30_000);
    },
    end: (redis) => redis.call('CONFIG', 'SET', 'stop-writes-on-bgsave-error', 'no'),
  },
};

for (const [cause, fault] of Object.entries(faults)) {
  test(`${fault.word}: readiness, log, metrics and every answer tell it, and events go on`, async () => {
    const redis = await server();
    const { nodes: [a, b], clients: [, far] } = await pair(redis.url);
    await a.publish('open', 'news', { room: 'r', k: 1 });
    await eventually('the event is there', () => far.inbox.some(([, data]) => data?.k === 1));
    assert.equal((await get(a, 'rooms/r/history?namespace=/')).body.complete, true);

    await fault.begin(redis);
    for (const node of [a, b]) {
      const told = await eventually('the node is degraded', async () => {
        const body = await ready(node);
        return body.status === 'degraded' && body;
      });
      const { connected, writable, cause: kind } = told.websocket.redis;
      assert.deepEqual({ connected, writable, kind }, { connected: true, writable: false, kind: cause });
      assert.match(told.reasons[0], new RegExp(`refuses writes.*${cause}.*${fault.word}`));
      await eventually('the log tells it', () => says(node, ['WARN', 'Redis refuses writes', fault.word]));
      assert.equal(await node.metric('roomcast_redis_failure', { cause }), 1);
      assert.ok((await node.metric('roomcast_redis_refused_total', { cause })) > 0);
      assert.equal(await node.metric('roomcast_redis_up'), 0);
      assert.equal((await ready(node)).cluster.nodes, 2, 'nodes go on hearing each other');
    }

    // Events reach the other node, also in a room that is joined meanwhile, and joining takes no longer than before.
    const began = Date.now();
    await far.ask('join', 'during');
    const took = Date.now() - began;
    assert.ok(took < 1_500, `a join took ${took} ms`);
    assert.equal(await b.metric('roomcast_cluster_unconfirmed_joins_total'), 0);
    for (const [room, k] of [['r', 2], ['during', 3]]) {
      const published = await a.publish('open', 'news', { room, k }, undefined);
      assert.equal(published.remote, 'carried');
      await eventually('the event is there', () => far.inbox.some(([, data]) => data?.k === k));
    }

    // The data in Redis is incomplete, and no answer claims that it is complete.
    const counts = await get(a, 'counts?namespace=/');
    assert.deepEqual([counts.status, counts.body.partial, counts.body.missingNodes], [200, true, [b.id]]);
    assert.equal(counts.body.connections, 1, 'those of this node');
    for (const path of ['connections?namespace=/', 'rooms?namespace=/', 'rooms/r/members?namespace=/']) {
      const { status, body } = await get(a, path);
      assert.deepEqual([path, status, body.partial, body.items.length], [path, 200, true, 1]);
    }
    const room = await get(a, 'rooms/r?namespace=/');
    assert.deepEqual([room.status, room.body.partial], [200, true]);
    assert.equal((await get(a, 'rooms/during?namespace=/')).status, 503, 'members on the other node only: not known here');
    assert.equal((await get(a, 'rooms/r/history?namespace=/')).body.complete, false);
    assert.equal((await get(a, 'rooms/r/history?namespace=/&since=0')).body.complete, false);
    const owner = await a.api('PUT', '/api/v1/owners', { namespace: '/', room: 'r', owner: 'ada', ttl: '1h' });
    assert.equal(owner.status, 503);
    const { body } = await a.api('POST', '/api/v1/events', { contract: 'open', event: 'news', data: { room: 'r', k: 4 }, id: 'once' });
    assert.deepEqual([body.remote, body.idempotent], ['carried', false]);

    await fault.end(redis);
    for (const node of [a, b]) {
      await eventually('the node is ready', async () => (await ready(node)).status === 'ready', 30_000);
      assert.equal(await node.metric('roomcast_redis_failure'), 0);
    }
    await eventually('presence is whole again', async () => {
      const { body } = await get(a, 'counts?namespace=/');
      return !body.partial && body.connections === 2;
    }, 30_000);
    // Events that were delivered meanwhile are missing in the history for good: a replay from an earlier offset is
    // incomplete, and one from a later offset is complete.
    const since = async (node, offset) => {
      const all = (await get(node, 'rooms/r/history?namespace=/')).body;
      const from = offset < 0 ? all.lastOffset + offset : offset;
      return (await get(node, `rooms/r/history?namespace=/&since=${from}&epoch=${all.epoch}`)).body.complete;
    };
    await eventually('what came behind it is whole', async () => {
      await a.publish('open', 'news', { room: 'r', k: 5 });
      return await since(b, -1);
    });
    for (const node of [a, b]) assert.deepEqual([await since(node, 0), await since(node, 1)], [false, false]);
  });
}

test('a demoted primary whose connections stay: nodes find the new one, and nothing counts as carried that it took', async () => {
  const [first, second] = [await server(['--repl-diskless-sync-delay', '0']), await server(['--repl-diskless-sync-delay', '0'])];
  await second.call('REPLICAOF', '127.0.0.1', first.port);
  await eventually('it follows', async () => (await second.call('INFO', 'replication')).includes('master_link_status:up'), 30_000);
  // A TCP proxy stands for a name that leads to the current primary. Existing connections stay with the old primary.
  let target = first.port;
  const proxy = net.createServer((near) => {
    const far = net.connect(target, '127.0.0.1');
    near.pipe(far).pipe(near);
    for (const end of [near, far]) end.on('error', () => {}).on('close', () => (near.destroy(), far.destroy()));
  });
  const port = await freePort();
  await new Promise((resolve) => proxy.listen(port, '127.0.0.1', resolve));
  ending.push(() => proxy.close());
  const { nodes: [a, b], clients: [, far] } = await pair(`redis://127.0.0.1:${port}`);

  // After the failover and before the name changes, all nodes are still connected to the old primary.
  await second.call('REPLICAOF', 'NO', 'ONE');
  await first.call('REPLICAOF', '127.0.0.1', second.port);
  const published = await a.publish('open', 'news', { room: 'r', k: 1 });
  assert.notEqual(published.remote, 'carried', 'a replica took it');
  for (const node of [a, b]) {
    const told = await eventually('the node tells it', async () => {
      const body = await ready(node);
      return body.websocket.redis.cause === 'read_only' && body;
    });
    assert.equal(told.status, 'degraded');
    assert.equal((await get(node, 'counts?namespace=/')).body.partial, true);
    assert.equal((await get(node, 'rooms/r/history?namespace=/')).status, 503);
    await eventually('the log tells it', () => says(node, ['WARN', 'READONLY']));
  }
  target = second.port;
  for (const node of [a, b]) {
    await eventually('the node is ready', async () => (await ready(node)).status === 'ready', 30_000);
  }
  await eventually('events cross', async () => {
    const { remote } = await a.publish('open', 'news', { room: 'r', k: 2 });
    return remote === 'carried' && far.inbox.some(([, data]) => data?.k === 2);
  });
  const clients = String(await first.call('CLIENT', 'LIST', 'TYPE', 'pubsub'));
  assert.equal(clients.trim(), '', 'nobody listens at the old primary');
});
