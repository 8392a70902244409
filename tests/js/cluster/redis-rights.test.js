// Nodes whose Redis user has exactly the rights in docs/redis.md can do everything.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { Backend } from '../harness/backend.js';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { Redis } from '../harness/redis.js';
import { comeBack, cut } from '../harness/returning.js';

const contracts = [join(ROOT, 'tests/js/fixtures/alone/rights.toml')];
const RULE = /```text\nuser roomcast on >PASSWORD ([^`]*)```/.exec(readFileSync(join(ROOT, 'docs/redis.md'), 'utf8'))[1];
// The patterns of the Redis keys that only this contract writes.
const OWN = ['~job-history:*', '~client:*', '~subscriptions:*'];
const PASSWORD = 'a pass word';
const ending = [];
after(async () => {
  for (const end of ending.reverse()) await end();
});

for (const wire of ['compact', 'socketio']) {
  test(`every feature, with redis.wire = ${wire}`, async () => {
    const redis = await Redis.start();
    ending.push(() => redis.stop());
    await redis.call('ACL', 'SETUSER', 'roomcast', 'on', `>${PASSWORD}`, ...RULE.trim().split(/\s+/), ...OWN);
    await redis.call('CONFIG', 'SET', 'acllog-max-len', '128');
    const backend = await Backend.start();
    ending.push(() => backend.stop());
    const toml = `username = "roomcast"\npassword = "${PASSWORD}"\nwire = "${wire}"\n[presence]\nheartbeat = "500ms"\n${backend.toml('backend')}`;
    const start = async () => {
      const node = await Node.start({ contracts, redis, toml });
      ending.push(() => node.stop());
      return node;
    };
    const denied = async () => assert.deepEqual(await redis.call('ACL', 'LOG'), [], 'nothing was denied');
    const [a, b] = [await start(), await start()];
    await eventually('the nodes know each other', async () => (await a.get('/ready')).body.cluster.nodes === 2);
    const [ada, ben] = await Promise.all([[a, 'ada'], [b, 'ben']].map(async ([node, user]) => await Client.connect(node, { user })));
    ending.push(() => ada.close(), () => ben.close());
    const got = async (client, name, n) =>
      await eventually(`${name} ${n} arrives`, () => client.inbox.some(([event, data]) => event === name && data?.n === n));

    // Uses rooms, statuses, publishes with and without an id, throttles, histories and their lists.
    for (const client of [ada, ben]) await client.ask('join', 'r');
    await ben.ask('status', 'away');
    for (let n = 1; n <= 5; n += 1) {
      const published = await a.api('POST', '/api/v1/events', { contract: 'rights', event: 'news', data: { name: 'r', n }, id: `id-${n}` });
      assert.deepEqual([published.body.remote, published.body.idempotent], ['carried', true]);
      await a.publish('rights', 'progress', { name: 'r', n });
      await got(ben, 'news', n);
    }
    await got(ben, 'progress', 5);
    assert.equal((await b.api('GET', '/api/v1/rooms/room%3Ar/history?namespace=/&since=0')).status, 200);
    assert.equal(await redis.call('LLEN', 'job-history:r'), 3);
    await ada.ask('join', 'late', { since: 0 });

    await denied();

    // Uses requests about presence, and actions on clients.
    const get = async (path) => {
      const { status, body } = await a.api('GET', `/api/v1/${path}`);
      assert.deepEqual([path, status, body.partial ?? false], [path, 200, false]);
      return body;
    };
    assert.equal((await eventually('both are counted', async () => {
      const counts = await get('counts?namespace=/');
      return counts.connections === 2 && counts;
    })).users, 2);
    const lists = ['connections', 'rooms', 'rooms/room%3Ar/members', 'users', 'users/ben'].map((path) => `${path}?namespace=/&limit=1`);
    const ones = ['rooms/room%3Ar', `connections/${ben.id}`].map((path) => `${path}?namespace=/`);
    for (const path of [...lists, ...ones]) await get(path);
    await get('counts?namespace=/&room=room:r');
    await a.own('/', 'room:r', 'ada');
    assert.ok((await b.api('DELETE', '/api/v1/owners', { namespace: '/', room: 'room:r' })).status < 300);

    // Uses recovery: clients lose their connection and are recovered, on this node and on another.
    await cut(ben);
    await a.publish('rights', 'news', { name: 'r', n: 6 });
    assert.equal(await comeBack(ben, a), true);
    await got(ben, 'news', 6);
    const joined = await a.api('POST', '/api/v1/join', { namespace: '/', sockets: [ben.id], room: 'room:api' });
    assert.deepEqual([joined.status, joined.body.remote], [202, 'carried']);

    // Uses emitters: to clients in general, and to a room with rules.
    const publisher = createClient({ url: redis.url });
    publisher.on('error', () => {});
    await publisher.connect();
    ending.push(() => publisher.disconnect());
    new Emitter(publisher).emit('plain', { n: 7 });
    await got(ada, 'plain', 7);
    await eventually('an emitter reaches a room with rules', () => {
      new Emitter(publisher).to('room:r').emit('news', { name: 'r', n: 8 });
      return ben.inbox.some(([event, data]) => event === 'news' && data?.n === 8);
    });

    // Uses revocations, notices, a terminal event, and nodes that end or die.
    const revoked = await a.api('POST', '/api/v1/revocations', { users: ['eve'], ttl: '1h' });
    assert.deepEqual([revoked.body.accepted, revoked.body.remote], [true, 'carried']);
    await a.publish('rights', 'done', { name: 'r', n: 9 });
    await ada.ask('leave', 'r');
    ada.close();
    await eventually('the backend hears of it', () => backend.requests.length > 0);
    await b.stop('SIGKILL');
    await eventually('what it left is removed', async () => (await redis.keys('roomcast:presence:*')).every((key) => !key.includes(b.id)), 20_000);
    assert.equal((await a.get('/ready')).body.status, 'ready');
    assert.equal(await a.metric('roomcast_redis_refused_total'), 0);
    await a.stop();

    await denied();
  });
}
