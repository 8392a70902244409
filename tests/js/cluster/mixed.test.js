// Node.js servers with the classic Redis adapter, and roomcast nodes, on one Redis: events in both directions.
import assert from 'node:assert/strict';
import http from 'node:http';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { createAdapter } from '@socket.io/redis-adapter';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { Server } from 'socket.io';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const contracts = [join(ROOT, 'tests/js/fixtures/alone/emitter.toml')];
const w = await world({ contracts, mode: 'cluster', env: { ROOMCAST_REDIS__WIRE: 'socketio' } });
const compact = await Node.start({ contracts, redis: w.redis });
const ours = [...w.nodes, compact];

const clients = [];
for (let n = 0; n < 2; n += 1) {
  const client = createClient({ url: w.redis.url, socket: { reconnectStrategy: false } });
  client.on('error', () => {});
  await client.connect();
  clients.push(client);
}
const server = http.createServer();
const io = new Server(server, { adapter: createAdapter(...clients, { requestsTimeout: 2_000 }) });
io.on('connection', (socket) => {
  socket.on('join', (room, ack) => {
    socket.join(room);
    ack({ success: true });
  });
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const node = { url: `http://127.0.0.1:${server.address().port}` };
after(async () => {
  io.engine.close();
  server.close();
  await Promise.all(clients.map((client) => client.disconnect().catch(() => {})));
  await compact.stop();
});
const strangers = [];
afterEach(() => {
  strangers.splice(0).forEach((client) => client.close());
  w.clear();
});

async function stranger(...rooms) {
  const client = await Client.connect(node);
  strangers.push(client);
  for (const room of rooms) await client.ask('join', room);
  return client;
}

async function member(on, ...rooms) {
  const client = await w.connect({}, on);
  for (const room of rooms) assert.equal((await client.ask('join', room)).success, true);
  return client;
}

const until = (client, name) => eventually(`${name} arrives`, () => client.inbox.some(([event]) => event === name));
const take = (client) => client.inbox.splice(0);

test('what Node.js sends reaches our clients, on nodes of both wires', async () => {
  const there = await stranger('r');
  const here = [];
  for (const on of ours) here.push(await member(on, 'r'));
  const [first, ...others] = here;
  io.emit('all', 1);
  io.to('r').emit('room', { at: new Date(0), bytes: Buffer.from([1, 2]) }, 'two');
  io.to(first.id).emit('one', 2);
  io.to('r').except(first.id).emit('others', 3);
  io.to('r').emit('end');
  for (const client of [there, ...here]) await until(client, 'end');
  const value = (client, name) => client.inbox.find(([event]) => event === name);
  for (const client of here) {
    assert.deepEqual(value(client, 'all'), ['all', 1]);
    const [, data, two] = value(client, 'room');
    assert.deepEqual([data.at, [...data.bytes], two], ['1970-01-01T00:00:00.000Z', [1, 2], 'two']);
  }
  assert.deepEqual(take(first).map(([name]) => name), ['all', 'room', 'one', 'end']);
  for (const client of others) assert.deepEqual(take(client).map(([name]) => name), ['all', 'room', 'others', 'end']);
});

test('what our nodes send reaches clients of Node.js once, with binary and exceptions, in order', async () => {
  const there = await stranger('r', 'q');
  const a = await member(w.a, 'r');
  const b = await member(w.b, 'r');
  const c = await member(compact, 'r');
  for (let n = 0; n < 300; n += 1) await w.a.emit({ namespace: '/', rooms: n % 3 ? ['r'] : ['r', 'q'], event: 'n', args: [n] });
  await w.a.emit({ namespace: '/', rooms: ['r'], except: [b.id], event: 'but', args: [{ x: 1.5, y: [null, 'é'] }] });
  a.send('say', { room: 'r' }, Buffer.from([7, 8, 9]));
  await w.a.emit({ namespace: '/', event: 'all', args: [] });
  await w.a.emit({ namespace: '/', sockets: [there.id], event: 'end', args: [] });
  await until(there, 'end');
  const numbers = (client) => client.inbox.filter(([name]) => name === 'n').map(([, n]) => n);
  for (const client of [there, a, b, c]) {
    // Events that a client sends and events through the API have no common order.
    for (const name of ['all', 'said']) await until(client, name);
    assert.deepEqual(numbers(client), Array.from({ length: 300 }, (_, n) => n));
    const [, , bytes] = client.inbox.find(([name]) => name === 'said');
    assert.deepEqual([...bytes], [7, 8, 9]);
    const but = client.inbox.filter(([name]) => name === 'but');
    assert.deepEqual(but, client === b ? [] : [['but', { x: 1.5, y: [null, 'é'] }]]);
  }
  for (const on of ours) assert.equal(await on.metric('roomcast_cluster_missed_total'), 0);
});

test('Node.js asks, and every server answers', async () => {
  const there = await stranger('r');
  const a = await member(w.a, 'r');
  const b = await w.connect({ user: 'ada', transport: 'websocket' }, w.b);
  await b.ask('join', 'q');
  assert.equal(await io.of('/').adapter.serverCount(), 3, 'the node of the other wire is none');
  const rooms = await io.of('/').adapter.allRooms();
  for (const room of ['r', 'q', a.id, b.id, there.id]) assert.ok(rooms.has(room), room);
  const sockets = await io.fetchSockets();
  assert.deepEqual(sockets.map(({ id }) => id).sort(), [a.id, b.id, there.id].sort());
  const found = sockets.find(({ id }) => id === b.id);
  assert.deepEqual([...found.rooms].sort(), [b.id, 'q'].sort());
  assert.equal(found.data.user, 'ada');
  assert.equal(found.handshake.query.transport, 'websocket');
  assert.deepEqual((await io.in('nowhere').fetchSockets()), []);
  assert.deepEqual(await io.serverSideEmitWithAck('hello', 1), [null, null]);
});

test('Node.js asks our clients for acknowledgements, and has them with those of its own', async () => {
  const there = await stranger('r');
  const [a, b] = [await member(w.a, 'r'), await member(w.b, 'r')];
  there.socket.on('ask', (n, done) => done({ there: n }));
  a.socket.on('ask', (n, done) => done({ a: n, bytes: Buffer.from([7, 0]) }, 'not told'));
  b.socket.on('ask', (n, done) => done());
  const answers = await io.timeout(5_000).in('r').emitWithAck('ask', 1);
  const sorted = answers.map((answer) => JSON.stringify(answer) ?? '-').toSorted();
  assert.deepEqual(sorted, ['-', '{"a":1,"bytes":{"type":"Buffer","data":[7,0]}}', '{"there":1}']);
  assert.deepEqual(await io.timeout(5_000).in('nowhere').emitWithAck('ask', 1), []);
  a.socket.off('ask');
  await assert.rejects(io.timeout(700).in('r').emitWithAck('ask', 2), ({ responses }) => responses.length === 2);
});

test('a backend asks clients of both kinds, and gets the answers of both', async () => {
  const there = [await stranger('quiz'), await stranger('quiz'), await stranger()];
  const here = [await member(w.a, 'quiz'), await member(w.b, 'quiz'), await member(compact, 'quiz')];
  for (const [n, client] of [...there, ...here].entries()) client.socket.on('confirm', (...args) => args.pop()({ n, args }, 'more'));
  const ask = async (on, body) => (await on.api('POST', '/api/v1/ask', { namespace: '/', event: 'confirm', ...body })).body;
  const sorted = ({ answers }) => answers.map(({ socketId, args: [{ n }] }) => [n, socketId]).sort(([a], [b]) => a - b);
  for (const on of w.nodes) {
    const said = await ask(on, { rooms: ['quiz'], args: ['delete?', { id: 7 }], timeout: '20s' });
    assert.deepEqual(sorted(said), [[0, undefined], [1, undefined], ...here.map(({ id }, at) => [3 + at, id])], JSON.stringify(said));
    assert.ok(said.answers.every(({ args: [{ args }] }) => JSON.stringify(args) === '["delete?",{"id":7}]'));
    assert.deepEqual([said.asked, said.unanswered, said.missingServers, said.missingNodes], [5, 0, 0, []]);
  }
  const one = await ask(w.a, { sockets: [there[2].id, here[1].id], timeout: '20s' });
  assert.deepEqual(sorted(one), [[2, undefined], [4, here[1].id]]);
  there[0].socket.off('confirm').on('confirm', (done) => done(Buffer.from([0, 255])));
  there[1].socket.off('confirm');
  const some = await ask(w.b, { rooms: ['quiz'], timeout: '1s' });
  assert.deepEqual([some.asked, some.answers.length, some.unanswered], [5, 4, 1]);
  const bytes = some.answers.find(({ attachments }) => attachments);
  assert.deepEqual(bytes, { args: [{ _placeholder: true, num: 0 }], attachments: ['AP8='] });
  assert.equal((await ask(w.a, { users: ['nobody'], timeout: '20s' })).asked, 0);
  // A node with the wire format `compact` does not exchange events with Node.js servers.
  assert.equal((await ask(compact, { rooms: ['quiz'], timeout: '20s' })).asked, 3);
});

test('of too many questions of Node.js at once the rest is not asked, and counted', async () => {
  const refused = () => w.b.metric('roomcast_socketio_dropped_total', { reason: 'full' });
  const before = await refused();
  await member(w.b, 'quiet');
  const asks = Array.from({ length: 300 }, (_, n) => io.timeout(2_000).in('quiet').emitWithAck('ask', n));
  const ends = await Promise.allSettled(asks);
  assert.equal(ends.filter(({ status }) => status === 'rejected').length, 256, 'the silence of a client that was asked');
  assert.ok(ends.every(({ status, value }) => status === 'rejected' || value.length === 0), 'nobody else was');
  assert.equal((await refused()) - before, 44);
});

test('Node.js acts on our clients', async () => {
  const a = await member(w.a, 'r');
  const c = await member(compact, 'r');
  io.in('r').socketsJoin('made');
  await eventually('both are in', async () => {
    io.to('made').emit('made');
    return a.inbox.length && c.inbox.length;
  });
  io.in(a.id).disconnectSockets();
  assert.equal(await a.ended(), 'io server disconnect');
  io.in('r').disconnectSockets(true);
  assert.equal(await c.ended(), 'transport close');
});

test('histories, and rules for what Node.js sends, hold on this wire', async () => {
  const a = await w.connect({}, w.a);
  const b = await w.connect({}, w.b);
  await a.ask('keep', 'h');
  await b.ask('story', 's');
  await eventually('one node publishes', async () => {
    io.to('story-s').emit('step', { n: 1 });
    return b.inbox.length > 0;
  });
  assert.ok(b.inbox[0][1].at, 'filled in');
  for (let n = 0; n < 3; n += 1) await w.b.emit({ namespace: '/', rooms: ['kept-h'], event: 'k', args: [n] });
  await eventually('all', () => a.inbox.length === 3);
  const late = await w.connect({}, w.b);
  await late.ask('keep', 'h');
  assert.deepEqual(take(late), [['k', 0], ['k', 1], ['k', 2]]);
});

test('what a rule is about comes once to clients of Node.js too, whoever sends it', async () => {
  const emitter = new Emitter(clients[0]);
  const there = await stranger('story-once', 'kept-once');
  const here = [];
  for (const on of ours) {
    const client = await w.connect({}, on);
    await client.ask('story', 'once');
    await client.ask('keep', 'once');
    here.push(client);
  }
  const everyone = [there, ...here];
  let probes = 0;
  await eventually('one node publishes', async () => {
    io.to('story-once').emit('step', { n: (probes -= 1) });
    return here.every(({ inbox }) => inbox.length > 0);
  });
  for (const [at, sender] of [io, emitter].entries()) {
    for (let n = 0; n < 5; n += 1) {
      sender.to('story-once').emit('step', { n: 10 * at + n });
      sender.to('kept-once').emit('k', 10 * at + n);
    }
    // The node conflates both bursts. It sends the last event of the first burst when the interval is over, and that of
    // the second burst before the terminal event.
    for (let n = 0; n < 5; n += 1) sender.to('story-once').emit('burst', 10 * at + n);
    for (const client of here) await eventually('the last', () => client.inbox.some(([name, n]) => name === 'burst' && n === 10 * at + 4));
    for (let n = 5; n < 9; n += 1) sender.to('story-once').emit('burst', 10 * at + n);
    sender.to('story-once').emit('done', at);
    for (const client of everyone) await eventually('the end', () => client.inbox.some(([name, n]) => name === 'done' && n === at));
  }
  // Clients of Node.js receive backends' events, too. After these last events no other event is in flight.
  await w.a.publish('emitter', 'step', { n: 100, id: 'once' });
  await w.a.emit({ namespace: '/', rooms: ['kept-once'], event: 'k', args: [100] });
  for (const client of everyone) for (const last of ['step', 'k']) await eventually(`the last ${last}`, () => client.inbox.some(([name, data]) => name === last && (data.n ?? data) === 100));
  const all = (client, name) => client.inbox.filter(([event]) => event === name).map(([, data]) => data.n ?? data).filter((n) => n >= 0);
  const numbers = [...Array(5).keys(), ...Array.from(Array(5).keys(), (n) => 10 + n), 100];
  for (const client of everyone) for (const name of ['step', 'k']) assert.deepEqual(all(client, name), numbers, name);
  // The Node.js server does not conflate events, so its clients get each event once.
  assert.deepEqual(all(there, 'burst'), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18]);
  for (const client of here) {
    const bursts = all(client, 'burst');
    assert.equal(new Set(bursts).size, bursts.length, `once: ${bursts}`);
    for (const n of [4, 8, 14, 18]) assert.ok(bursts.includes(n), `${n} of ${bursts}`);
  }
  for (const client of everyone) assert.deepEqual(all(client, 'done'), [0, 1]);
});
