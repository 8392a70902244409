// Tests the drain of a node: refused handshakes, closed sockets of every kind, the API and the command line, signals.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { promisify } from 'node:util';
import { WebSocket } from 'ws';
import { Backend } from '../harness/backend.js';
import { eventually } from '../harness/eventually.js';
import { API_KEY, Node, ROOT, binary } from '../harness/node.js';
import { stop } from '../harness/process.js';
import { world } from '../harness/world.js';

const contracts = ['embedded:chat'];
const w = await world({ contracts });
const path = '/socket.io/?EIO=4&transport=';
const returns = { reconnection: true, reconnectionDelay: 100, reconnectionDelayMax: 300 };

const drain = async (method = 'POST') => (await w.b.api(method, '/api/v1/drain')).body;
const state = async (want) =>
  await eventually(`the node is ${want}`, async () => (await drain('GET')).state === want, 15_000);
const roomcast = async (...args) => {
  const run = promisify(execFile)(binary(), ['drain', '--url', w.b.apiUrl, '--key', API_KEY, ...args]);
  return (await run).stdout.trim().split('\n').map((line) => JSON.parse(line));
};

// The node drains while the clients are closed, so that it does not accept a client that reconnects at this moment.
afterEach(async () => {
  await drain();
  w.clear();
  await eventually('everybody is gone', async () => (await drain('GET')).left === 0);
  await drain('DELETE');
});

test('a node that drains is not ready, and refuses handshakes of both transports so that clients try again', async () => {
  assert.equal((await drain('GET')).state, 'serving');
  await drain();
  await state('drained');
  const ready = await w.b.get('/ready');
  assert.deepEqual([ready.status, ready.body.status], [503, 'draining']);
  const polling = await w.b.get(`${path}polling`);
  assert.deepEqual([polling.status, polling.headers.get('retry-after')], [503, '5']);
  assert.equal(polling.body.error.code, 'UNAVAILABLE');
  const answer = await new Promise((resolve) => {
    const socket = new WebSocket(`${w.b.url.replace('http', 'ws')}${path}websocket`);
    socket.on('unexpected-response', (_, response) => resolve(response)).on('error', () => {});
  });
  assert.deepEqual([answer.statusCode, answer.headers['retry-after']], [503, '5']);
  for (const transport of ['websocket', 'polling']) {
    const bob = w.open({ user: 'bob', transport, ...returns });
    await assert.rejects(bob.connected());
    assert.equal(bob.socket.active, true, 'it keeps trying');
    await drain('DELETE');
    await eventually('it is let in once the node serves', () => bob.socket.connected);
    await drain();
    await state('drained');
  }
});

test('clients of every kind see a transport close, and come back by themselves', async () => {
  const clients = [];
  for (const transport of ['websocket', 'polling', 'upgrade']) {
    clients.push(await w.connect({ user: transport, transport, ...returns }));
  }
  // Neither of these two polling sessions has sent CONNECT. The second is upgrading.
  const silent = JSON.parse((await w.b.get(`${path}polling`)).body.slice(1)).sid;
  const upgrading = JSON.parse((await w.b.get(`${path}polling`)).body.slice(1)).sid;
  const probe = new WebSocket(`${w.b.url.replace('http', 'ws')}${path}websocket&sid=${upgrading}`);
  await new Promise((resolve) => probe.on('open', resolve));
  const raw = new WebSocket(`${w.b.url.replace('http', 'ws')}${path}websocket`);
  const rawEnded = new Promise((resolve) => raw.on('close', resolve));
  await new Promise((resolve) => raw.on('open', resolve));
  const poll = fetch(`${w.b.url}${path}polling&sid=${silent}`).then((response) => response.text());
  await eventually('all are counted', async () => (await drain('GET')).left === 6);
  await w.b.emit({ namespace: '/', event: 'last', args: [1] });
  await drain();
  await state('drained');
  await rawEnded;
  for (const client of clients) {
    assert.equal(await client.ended(), 'transport close', client.transport);
    assert.ok(client.inbox.some(([name]) => name === 'last'), `${client.transport} has the last words`);
    assert.equal(client.socket.active, true);
  }
  await poll;
  assert.equal((await w.b.get(`${path}polling&sid=${silent}`)).body, '1', 'a poll is told that the session is closed');
  assert.equal(await w.b.metric('roomcast_drain_state', { state: 'drained' }), 1);
  assert.equal(await w.b.metric('roomcast_drain_sockets_left'), 0);
  assert.ok((await w.b.metric('roomcast_drain_closed_total')) >= 6);
  await drain('DELETE');
  for (const { socket } of clients) await eventually('it is back', () => socket.connected);
});

test('what waits for a client between two polls is fetched before its session is closed', async () => {
  const { sid } = JSON.parse((await w.b.get(`${path}polling`)).body.slice(1));
  const url = `${path}polling&sid=${sid}`;
  const alice = await w.connect({ user: 'alice' });
  await w.b.get(url, { method: 'POST', body: `40${JSON.stringify({ token: alice.socket.auth.token })}` });
  const seen = [];
  await eventually('it is let in', async () => {
    const { body } = await w.b.get(url);
    seen.push(body);
    return seen.join().includes('40{"sid"');
  });
  await w.b.emit({ namespace: '/', event: 'last', args: [1] });
  await drain();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await eventually('the words come, and then the end', async () => {
    seen.push((await w.b.get(url)).body);
    return seen.at(-1) === '1';
  });
  assert.ok(seen.join().includes('42["last",1]'), seen.join());
});

test('the command line drains, waits, tells, and undoes', async () => {
  await w.connect({ user: 'alice' });
  const told = await roomcast('--wait');
  assert.equal(told.at(-1).state, 'drained');
  assert.equal((await roomcast('--status'))[0].state, 'drained');
  assert.equal((await roomcast('--undo'))[0].state, 'serving');
});

test('a signal closes everybody, has the backends told of it, and ends the process with 0', async (t) => {
  const backend = await Backend.start();
  t.after(() => backend.stop());
  const hooked = [join(ROOT, 'tests/js/fixtures/hooked.toml')];
  const env = { ROOMCAST_DRAIN__DEADLINE: '15s' };
  const node = await Node.start({ contracts: hooked, redis: w.redis, toml: backend.toml('backend'), env });
  // If there is a Redis, another node delivers the notices that the drained node has stored but not delivered.
  const other = w.redis && (await Node.start({ contracts: hooked, redis: w.redis, toml: backend.toml('backend') }));
  t.after(() => other?.stop());
  const there = ['websocket', 'polling', 'upgrade'].map((transport) =>
    w.connect({ namespace: '/hooked', user: transport, transport, ...returns }, node),
  );
  const clients = await Promise.all(there);
  const publishing = node.api('POST', '/api/v1/emit', { namespace: '/hooked', event: 'last', args: [1] });
  await publishing;
  const end = stop(node.process, 'SIGTERM', 20_000);
  for (const client of clients) {
    assert.equal(await client.ended(), 'transport close', client.transport);
    assert.ok(client.inbox.some(([name]) => name === 'last'), client.transport);
  }
  assert.deepEqual(await end, { code: 0, signal: null });
  // At least once: with Redis, another node may repeat a notice if it cannot know that it was delivered.
  await eventually('the backend is told', () => {
    const once = new Map(backend.of('disconnect').map((event) => [event.id, event]));
    const told = [...once.values()].map(({ data }) => [data.user.id, data.reason]);
    assert.deepEqual(told.sort(), ['polling', 'upgrade', 'websocket'].map((user) => [user, 'server transport close']));
    return true;
  });
});

test('what a throttle holds is said before the node goes', async () => {
  const held = { contracts: [join(ROOT, 'tests/js/fixtures/alone/held.toml')], redis: w.redis };
  const node = await Node.start(held);
  const other = w.redis && (await Node.start(held));
  const clients = await Promise.all([node, other].filter(Boolean).map((at) => w.connect({ namespace: '/held' }, at)));
  for (const n of [1, 2, 3]) await node.publish('held', 'step', { n });
  for (const { inbox } of clients) await eventually('the first passes', () => inbox.length === 1);
  const began = Date.now();
  const end = node.stop('SIGTERM');
  for (const { inbox } of clients) await eventually('the newest comes', () => inbox.length === 2);
  assert.deepEqual(await end, { code: 0, signal: null });
  assert.ok(Date.now() - began < 10_000, 'nobody waits for its time');
  for (const { inbox } of clients) assert.deepEqual(inbox.map(([, { n }]) => n), [1, 3]);
  await other?.stop();
});

for (const [signal, code] of [['SIGTERM', 143], ['SIGINT', 130]]) {
  test(`a second signal ends the process at once: ${signal}`, async () => {
    const env = { ROOMCAST_DRAIN__DELAY: '10s', ROOMCAST_DRAIN__DEADLINE: '60s', ROOMCAST_DRAIN__ACCEPTS: '1' };
    const node = await Node.start({ contracts, redis: w.redis, env });
    await Promise.all(Array.from({ length: 20 }, () => w.connect({ user: 'dave' }, node)));
    node.process.child.kill('SIGTERM');
    await eventually('it drains', async () => (await node.get('/ready')).status === 503);
    const began = Date.now();
    assert.deepEqual(await node.stop(signal), { code, signal: null });
    assert.ok(Date.now() - began < 3_000, 'at once');
  });
}
