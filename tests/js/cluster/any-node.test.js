// Tests a cluster without sticky sessions: nginx gives each request to the next of three nodes, without a cookie or a
// hash, and the nodes forward requests of each other's sessions.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Nginx } from '../harness/nginx.js';
import { Node, ROOT, binary } from '../harness/node.js';
import { OldClient } from '../harness/old-client.js';
import { freeze, start } from '../harness/process.js';
import { Redis } from '../harness/redis.js';
import { token } from '../harness/token.js';

const contracts = ['embedded:chat', join(ROOT, 'tests/js/fixtures/old-clients.toml')];
const env = {
  ROOMCAST_CLUSTER__LISTEN: '127.0.0.1:0',
  ROOMCAST_SERVER__ALLOW_EIO3: 'true',
  ROOMCAST_CLUSTER__SECRET: 'a secret of the cluster, of the tests 0123456789',
  ROOMCAST_SERVER__TRUSTED_PROXIES: '127.0.0.1',
  // Polls are answered within 3 s, so that a node that stops does not wait long for them.
  ROOMCAST_SERVER__PING_INTERVAL: '3s',
  ROOMCAST_SERVER__PING_TIMEOUT: '5s',
};
const redis = await Redis.start();
const startNode = () => Node.start({ contracts, redis, env });
const nodes = await Promise.all([1, 2, 3].map(startNode));
const nginx = await Nginx.start(nodes.map(({ url }) => url.slice(7)), { FRONT_NODES: 'any' });
const front = { url: nginx.url, emit: (body) => nodes.find(({ alive }) => alive).emit(body) };
let clients = [];

const known = async () => (await Promise.all(nodes.map((node) => node.metric('roomcast_cluster_nodes')))).every((count) => count === 3);
await eventually('the nodes know each other', known);
afterEach(() => {
  clients.forEach((client) => client.close());
  clients = [];
});
after(async () => {
  await nginx.stop();
  await Promise.all(nodes.map((node) => node.stop()));
  await redis.stop();
});

async function connect(options) {
  const client = await Client.connect(front, options);
  clients.push(client);
  return client;
}

const alive = () => nodes.filter((node) => node.alive);
const sum = async (name, labels) =>
  (await Promise.all(alive().map((node) => node.metric(name, labels)))).reduce((total, count) => total + count, 0);
const forwarded = (kind, result = 'answered') => sum('roomcast_forwarded_total', { kind, result });
const opened = (node) => node.metric('roomcast_connections', { nsp: '/' });
const back = { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };

/** Opens a session with single requests on a node. Returns its path and query, without the node's address. */
async function session(node, headers = {}) {
  const path = '/socket.io/?EIO=4&transport=polling';
  const { sid } = JSON.parse((await (await fetch(node.url + path, { headers })).text()).slice(1));
  return { sid, path: `${path}&sid=${sid}` };
}

async function ask(node, path, init) {
  const answer = await fetch(node.url + path, init);
  return { status: answer.status, body: await answer.text() };
}

const UNKNOWN = { status: 400, body: '{"code":1,"message":"Session ID unknown"}' };


/** Writes bytes to a listener, and returns the first line of the answer. */
async function firstLine(url, text) {
  const socket = net.connect(Number(new URL(url).port), '127.0.0.1');
  socket.write(text, 'latin1');
  const [answer] = await once(socket, 'data');
  socket.destroy();
  return answer.toString('latin1').split('\r\n')[0];
}

const counts = async () => ({ poll: await forwarded('poll'), post: await forwarded('post'), upgrade: await forwarded('upgrade') });
const FAILURES = ['gone', 'unreachable', 'cut', 'timeout', 'refused', 'busy', 'too_large', 'slow_body', 'overlap'];
const failures = () => Promise.all(FAILURES.map((result) => sum('roomcast_forwarded_total', { result })));

for (const transport of ['polling', 'upgrade', 'websocket']) {
  describe(`over ${transport}`, () => {
    test('a session goes on wherever its requests come', async () => {
      const [before, failed] = [await counts(), await failures()];
      // Several clients connect in a row, because the upgrade of one may happen to reach the session's own node.
      for (const user of ['alice', 'bob', 'carol', 'dave']) {
        const client = await connect({ user, transport });
        assert.equal(client.socket.io.engine.transport.name, transport === 'polling' ? 'polling' : 'websocket');
        await client.ask('room:join', { room: 'all' });
        for (let count = 0; count < 20; count += 1) assert.equal((await client.ask('ping')).success, true);
        assert.equal(client.disconnected, undefined);
      }
      await clients[0].ask('message', { from: 'alice', room: 'all', content: 'to all', type: 't' });
      for (const client of clients) {
        await eventually('the message arrives', () => client.inbox.some(([event]) => event === 'message'));
      }
      const now = await counts();
      const grew = Object.fromEntries(Object.entries(now).map(([kind, count]) => [kind, count - before[kind] > 0]));
      const some = transport !== 'websocket';
      assert.deepEqual(grew, { poll: some, post: some, upgrade: transport === 'upgrade' });
      assert.deepEqual(await failures(), failed);
    });

    test('binary data passes byte for byte, and backends ask clients', async () => {
      const [alice, bob] = [await connect({ user: 'alice', transport }), await connect({ user: 'bob', transport })];
      for (const client of [alice, bob]) await client.ask('room:join', { room: 'bytes' });
      const content = { small: Buffer.from([0, 1, 2, 255]), large: randomBytes(200_000) };
      assert.equal((await alice.ask('message', { from: 'alice', room: 'bytes', content, type: 'b' })).success, true);
      const message = () => bob.inbox.find(([event]) => event === 'message');
      await eventually('the message arrives', message);
      for (const part of ['small', 'large']) assert.ok(content[part].equals(Buffer.from(message()[1].content[part])), part);
      bob.socket.on('confirm', (...args) => args.pop()('bob', ...args));
      const { body } = await nodes[0].api('POST', '/api/v1/ask', { namespace: '/', event: 'confirm', users: ['bob'], args: [1] });
      assert.deepEqual(body.answers, [{ socketId: bob.id, args: ['bob', 1] }]);
    });
  });
}

for (const transport of ['polling', 'upgrade', 'websocket']) {
  test(`sessions of Socket.IO 2 over ${transport} go on wherever their requests come`, async () => {
    const before = await counts();
    // Several clients connect in a row, because the upgrade of one may happen to reach the session's own node.
    const old = ['ann', 'bea', 'cid', 'dan'].map((user) => new OldClient(front, { namespace: '/private', transport, token: token({ sub: user }) }));
    clients.push(...old);
    for (const client of old) {
      // The contract of `/` refuses these clients, because it does not look for a token in the query.
      await eventually('the client is connected', () => client.socket.connected);
      assert.equal((await client.ask('enter', 'all')).success, true);
      for (let count = 0; count < 10; count += 1) assert.equal(await client.ask('echo', count), count);
    }
    old[0].send('tell', 'all', Buffer.from([0, 1, 255]));
    for (const client of old) {
      const told = await eventually('the event arrives', () => client.inbox.find(([event]) => event === 'told'));
      assert.deepEqual(told, ['told', 'all', Buffer.from([0, 1, 255])]);
      assert.equal(client.disconnected, undefined);
    }
    const grew = Object.entries(await counts()).map(([kind, count]) => [kind, count > before[kind]]);
    const some = transport !== 'websocket';
    assert.deepEqual(Object.fromEntries(grew), { poll: some, post: some, upgrade: transport === 'upgrade' });
  });
}

test('the doctor finds nothing to say against it', async () => {
  const skipped = ['patience', 'cors', 'token'].flatMap((name) => ['--skip', name]);
  const looked = start(binary(), ['doctor', front.url, '--polls', '6', ...skipped]);
  const { code } = await looked.done;
  const told = looked.lines.map(({ text }) => text).join('\n');
  assert.equal(code, 0, told);
  for (const check of ['stickiness', 'stickiness\\.no_cookies', 'upgrade']) assert.match(told, new RegExp(`ok +${check}:`));
});

test('a session is bound to its address, and its address is counted once', async () => {
  const [one, two] = nodes;
  const from = (ip) => ({ headers: { 'x-forwarded-for': ip } });
  const { path } = await session(one, from('192.0.2.1').headers);
  assert.equal((await ask(two, path, { ...from('192.0.2.1'), method: 'POST', body: '40' })).status, 200);
  assert.deepEqual(await ask(two, path, from('192.0.2.2')), UNKNOWN);
  assert.deepEqual(await ask(two, path, {}), UNKNOWN);
  // The address in the header decides: a request with the address that opened the session is still accepted.
  assert.equal((await ask(two, path, from('192.0.2.1'))).status, 200);
  await ask(two, path, { ...from('192.0.2.1'), method: 'POST', body: '1' });
});

test('limits of an address hold for sessions whose requests come to other nodes', async () => {
  const strict = await Node.start({ contracts, redis, env: { ...env, ROOMCAST_LIMITS__MAX_CONNECTIONS_PER_IP: '1' } });
  nodes.push(strict);
  await eventually('the new node is known', async () => (await strict.metric('roomcast_cluster_nodes')) === 4);
  await eventually('to the others, too', async () => (await nodes[0].metric('roomcast_cluster_nodes')) === 4);
  const headers = { 'x-forwarded-for': '192.0.2.7' };
  const { path } = await session(strict, headers);
  const present = () => strict.metric('roomcast_limits_present', { what: 'addresses' });
  assert.equal(await present(), 1);
  assert.equal((await ask(nodes[0], path, { method: 'POST', body: '40', headers })).status, 200);
  assert.equal((await ask(nodes[0], path, { headers })).status, 200);
  assert.equal(await present(), 1, 'the node that passed it on is no client');
  assert.equal((await ask(strict, '/socket.io/?EIO=4&transport=polling', { headers })).status, 429, 'one is connected');
  await ask(nodes[0], path, { method: 'POST', body: '1', headers });
  await strict.stop('SIGKILL');
  nodes.pop();
});

test('an id that no node made, and one of a node that is not here, is unknown', async () => {
  const { sid, path } = await session(nodes[0]);
  const changed = path.replace(sid, sid.slice(0, -1) + (sid.endsWith('A') ? 'B' : 'A'));
  const before = await sum('roomcast_forwarded_total');
  for (const forged of [changed, path.replace(sid, 'A'.repeat(48)), path.replace(sid, 'x')]) {
    for (const method of ['GET', 'POST']) {
      assert.deepEqual(await ask(nodes[1], forged, { method, ...(method === 'POST' && { body: '40' }) }), UNKNOWN);
    }
  }
  assert.equal(await sum('roomcast_forwarded_total'), before, 'nothing was passed on');
  const ended = await ask(nodes[1], path, { method: 'POST', body: '1' });
  assert.equal(ended.status, 200);
  await eventually('the session has ended', async () => (await ask(nodes[1], path)).status === 400);
});

test('a node with another secret is not asked, and asks in vain', async () => {
  const other = await Node.start({
    contracts,
    redis,
    env: { ...env, ROOMCAST_CLUSTER__SECRET: 'another secret, of somebody else 0123456789' },
  });
  await eventually('it knows the others', async () => (await other.metric('roomcast_cluster_nodes')) === 4);
  const [here, there] = [await session(nodes[0]), await session(other)];
  assert.deepEqual(await ask(other, here.path), UNKNOWN);
  assert.deepEqual(await ask(nodes[0], there.path), UNKNOWN);
  await other.stop('SIGKILL');
});

test('cluster.listen takes requests of nodes only, and each of them once', async () => {
  const passed = [];
  const tap = net.createServer((near) => {
    const far = net.connect(Number(new URL(owner.clusterUrl).port), '127.0.0.1');
    near.on('data', (bytes) => passed.push(bytes)).pipe(far).pipe(near);
    for (const end of [near, far]) end.on('error', () => {});
  });
  await new Promise((resolve) => tap.listen(0, '127.0.0.1', resolve));
  const owner = await Node.start({ contracts, redis, env: { ...env, ROOMCAST_CLUSTER__ADVERTISE: `127.0.0.1:${tap.address().port}` } });
  await eventually('the others know it', async () => (await nodes[0].metric('roomcast_cluster_nodes')) === 4);
  const received = (result) => owner.metric('roomcast_forward_received_total', { result });
  const { path } = await session(owner);
  const direct = await fetch(owner.clusterUrl + path, { method: 'POST', body: '40' });
  assert.deepEqual([direct.status, await direct.text()], [401, '']);
  assert.equal((await fetch(`${owner.clusterUrl}/metrics`)).status, 401);
  assert.equal(await received('malformed'), 2);
  assert.equal((await ask(nodes[0], path, { method: 'POST', body: '40' })).status, 200);
  assert.equal(await received('served'), 1);
  const request = Buffer.concat(passed).toString('latin1');
  assert.match(request, /^POST \/socket\.io\/[^\r]*\r\n(.*\r\n)*roomcast-forwarded: 1;.*\r\n\r\n40$/is);
  const again = (text) => firstLine(owner.clusterUrl, text);
  assert.equal(await again(request), 'HTTP/1.1 401 Unauthorized');
  assert.equal(await received('replayed'), 1);
  for (const [from, to] of [[';127.0.0.1;', ';127.0.0.9;'], ['POST', 'PUSH'], ['polling', 'pollinG'], ['content-type: text', 'content-type: test']]) {
    assert.ok(request.includes(from), from);
    assert.equal(await again(request.replace(from, to)), 'HTTP/1.1 401 Unauthorized', from);
  }
  assert.equal(await received('signature'), 4);
  assert.equal(await received('served'), 1);
  await owner.stop('SIGKILL');
  tap.close();
});

test('nodes that show certificates pass on what they get, and take nothing from those that show none', async () => {
  const key = (name) => join(ROOT, 'tests/keys', name);
  const tls = {
    ROOMCAST_CLUSTER__TLS__CA_FILE: key('nodes.pem'),
    ROOMCAST_CLUSTER__TLS__CERT_FILE: key('node.pem'),
    ROOMCAST_CLUSTER__TLS__KEY_FILE: key('node-key.pem'),
    ROOMCAST_CLUSTER__TLS__SERVER_NAME: 'node.roomcast.internal',
  };
  const own = await Redis.start();
  const [owner, passer] = await Promise.all([1, 2].map(() => Node.start({ contracts, redis: own, env: { ...env, ...tls } })));
  await eventually('they know each other', async () => (await passer.metric('roomcast_cluster_nodes')) === 2);
  const { path } = await session(owner);
  assert.equal((await ask(passer, path, { method: 'POST', body: `40${JSON.stringify({ token: token({ sub: 'ada' }) })}` })).status, 200);
  await eventually('it is connected', async () => (await ask(passer, path)).body.includes('40{'));
  const socket = new WebSocket(`${passer.url.replace('http', 'ws')}${path.replace('polling', 'websocket')}`);
  const messages = [];
  socket.on('message', (data) => messages.push(data.toString()));
  await once(socket, 'open');
  socket.send('2probe');
  await eventually('the probe is answered', () => messages.includes('3probe'));
  socket.send('5');
  socket.send('420["ping"]');
  await eventually('an acknowledgement comes through the tunnel', () => messages.some((text) => text.startsWith('430')));
  assert.equal(await passer.metric('roomcast_forward_in_flight', { what: 'tunnel' }), 1);
  socket.terminate();
  await eventually('the tunnel has ended', async () => (await passer.metric('roomcast_forward_in_flight', { what: 'tunnel' })) === 0);
  const { port } = new URL(owner.clusterUrl);
  await assert.rejects(fetch(owner.clusterUrl + path), 'without TLS');
  const bare = https.get({ port, host: '127.0.0.1', path, rejectUnauthorized: false });
  await assert.rejects(once(bare, 'response'), 'without a certificate');
  await Promise.all([owner, passer].map((node) => node.stop('SIGKILL')));
  await own.stop();
});

test('a node that is stopped is given up soon, and one that has lost only Redis is not', async (t) => {
  const own = await Redis.start();
  t.after(() => own.stop());
  // With the default heartbeat of clients, an answer to a poll may take 45 s.
  const { ROOMCAST_SERVER__PING_INTERVAL, ROOMCAST_SERVER__PING_TIMEOUT, ...usual } = env;
  const [owner, passer] = await Promise.all([1, 2].map(() => Node.start({ contracts, redis: own, env: usual })));
  t.after(() => Promise.all([owner, passer].map((node) => node.stop('SIGKILL'))));
  await eventually('they know each other', async () => (await passer.metric('roomcast_cluster_nodes')) === 2);
  const silent = (kind) => passer.metric('roomcast_forwarded_total', { kind, result: 'silent' });
  const probes = () => owner.metric('roomcast_forward_received_total', { result: 'served' });
  const waiting = async () => {
    const { path } = await session(owner);
    assert.equal((await ask(passer, path, { method: 'POST', body: `40${JSON.stringify({ token: token({ sub: 'ada' }) })}` })).status, 200);
    await eventually('it is connected', async () => (await ask(passer, path)).body.includes('40{'));
    return { path, poll: ask(passer, path) };
  };
  const first = await waiting();
  await freeze(own.process);
  const before = await probes();
  await eventually('the node is probed, because no heartbeat comes', async () => (await probes()) > before, 30_000);
  own.process.child.kill('SIGCONT');
  assert.equal((await ask(passer, first.path, { method: 'POST', body: '420["ping"]' })).status, 200);
  // The event `pong` comes before the acknowledgement, which may be in the same answer or in the next one.
  assert.match((await first.poll).body, /"pong"/, 'the session goes on');

  const second = await waiting();
  await freeze(owner.process);
  const since = Date.now();
  const post = ask(passer, second.path, { method: 'POST', body: '420["ping"]' });
  assert.deepEqual(await Promise.all([second.poll, post]), [UNKNOWN, UNKNOWN]);
  assert.ok(Date.now() - since < 30_000, `${Date.now() - since} ms`);
  assert.deepEqual([await silent('poll'), await silent('post')], [1, 1]);
  owner.process.child.kill('SIGCONT');
  const { path } = await session(owner);
  assert.equal((await ask(passer, path, { method: 'POST', body: '1' })).status, 200, 'it is asked again');
});

test('what is on its way to other nodes is bounded, and what is beyond costs no session', async () => {
  const narrow = await Node.start({ contracts, redis, env: { ...env, ROOMCAST_CLUSTER__MAX_FORWARDED: '1' } });
  await eventually('it knows the others', async () => (await narrow.metric('roomcast_cluster_nodes')) === 4);
  const [first, second] = [await session(nodes[0]), await session(nodes[0])];
  // The body of this request has not arrived yet, so the request stays in flight.
  const slow = http.request(narrow.url + first.path, { method: 'POST', headers: { 'content-type': 'text/plain', 'content-length': 2 } });
  slow.flushHeaders();
  await eventually('a request is on its way', async () => (await narrow.metric('roomcast_forward_in_flight', { what: 'request' })) === 1);
  const refused = await ask(narrow, second.path, { method: 'POST', body: '40' });
  assert.equal(refused.status, 503);
  assert.equal(await narrow.metric('roomcast_forwarded_total', { kind: 'post', result: 'busy' }), 1);
  slow.end('40');
  const [answer] = await once(slow, 'response');
  assert.equal(answer.resume().statusCode, 200);
  await eventually('there is room again', async () => (await narrow.metric('roomcast_forward_in_flight')) === 0);
  assert.equal((await ask(narrow, second.path, { method: 'POST', body: '1' })).status, 200, 'the session is still there');
  await narrow.stop('SIGKILL');
});

test('a node that drains brings its clients and those that pass through it to the others', async () => {
  const many = await Promise.all(
    Array.from({ length: 18 }, (_, at) =>
      connect({ user: `u${at}`, transport: ['websocket', 'polling', 'upgrade'][at % 3], ...back }),
    ),
  );
  for (const client of many) await client.ask('room:join', { room: 'drain' });
  const [leaving] = nodes;
  await leaving.stop('SIGTERM');
  assert.deepEqual(leaving.process.end, { code: 0, signal: null });
  await eventually('everybody is back', async () => {
    const now = await Promise.all(alive().map(opened));
    return now[0] + now[1] === many.length && many.every(({ socket }) => socket.connected);
  }, 30_000);
  for (const client of many) assert.equal((await client.ask('ping')).success, true);
  nodes[0] = await startNode();
});

test("a killed node's sessions begin anew, and the others' go on", async () => {
  const two = alive().slice(1);
  const lone = await Promise.all(
    Array.from({ length: 12 }, (_, at) => connect({ user: `u${at}`, transport: ['polling', 'upgrade'][at % 2], ...back })),
  );
  const [dead] = two;
  const { path } = await session(dead);
  await dead.stop('SIGKILL');
  const [other] = alive().filter((node) => node !== nodes[0]);
  assert.deepEqual(await ask(other, path), UNKNOWN);
  await eventually('everybody is back', async () => {
    const now = (await Promise.all(alive().map(opened))).reduce((total, count) => total + count, 0);
    return now === lone.length && lone.every(({ socket }) => socket.connected);
  }, 30_000);
  for (const client of lone) assert.equal((await client.ask('ping')).success, true);
});
