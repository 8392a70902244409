// Everything that the official Redis emitter sends reaches the clients of all nodes.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { eventually, timestamp } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const fixture = (name) => join(ROOT, 'tests/js/fixtures', name);
const contracts = [fixture('alone/emitter.toml'), fixture('alone/emitter-other.toml')];
const w = await world({ contracts, mode: 'cluster' });
const publisher = createClient({ url: w.redis.url });
publisher.on('error', () => {});
await publisher.connect();
after(() => publisher.disconnect());
afterEach(() => w.clear());
const emitter = new Emitter(publisher);

const numsub = async (channel) => (await w.redis.call('PUBSUB', 'NUMSUB', channel))[1];
const total = async (name, labels) => (await Promise.all(w.nodes.map((node) => node.metric(name, labels)))).reduce((a, b) => a + b);

/** Connects a client to each node, and joins these rooms. */
async function pair(...rooms) {
  const clients = [await w.connect({}, w.a), await w.connect({}, w.b)];
  for (const client of clients) for (const room of rooms) assert.equal((await client.ask('join', room)).success, true);
  return clients;
}

/** Returns all events that arrived before the emitter's marker. */
let marks = 0;
async function drain(client, from = emitter) {
  const mark = ++marks;
  from.to(client.id).emit('mark', mark);
  const at = await eventually('the mark arrives', () => client.inbox.findIndex(([name, n]) => name === 'mark' && n === mark) + 1);
  return client.inbox.splice(0, at).filter(([name]) => name !== 'mark');
}

test('to rooms, to all, to one socket, and except', async () => {
  const [a, b] = await pair('r1');
  await b.ask('join', 'r2');
  emitter.emit('all', 1);
  emitter.to('r1').emit('room', 2);
  emitter.to(['r1', 'r2']).emit('both', 3);
  emitter.in('r1').in('r2').except('r2').emit('but', 4);
  emitter.to(a.id).emit('one', 5);
  emitter.except(a.id).emit('others', 6);
  emitter.to('nobody').emit('nothing', 7);
  assert.deepEqual(await drain(a), [['all', 1], ['room', 2], ['both', 3], ['but', 4], ['one', 5]]);
  assert.deepEqual(await drain(b), [['all', 1], ['room', 2], ['both', 3], ['others', 6]]);
});

test('every kind of value, and arguments apart', async () => {
  const [a, b] = await pair('values');
  const room = emitter.to('values');
  const late = new Date(253402300800000);
  room.emit('many', 'one', [2, 'two'], { three: [3.5, -4, 2 ** 53, 4294967296, null, true] }, undefined);
  room.emit('none');
  room.emit('dates', new Date('2026-01-01T00:00:00.000Z'), { at: new Date('2026-01-01T00:00:00.123Z') }, new Date(-1), late);
  room.emit('odd', NaN, Infinity, new Map([[1, 2]]), { left: undefined, own: { toJSON: () => 'json' } });
  room.emit('text', 'é 😀 "\\ \u0000', 'x'.repeat(70_000));
  room.emit('bytes', Buffer.from([0, 1, 2]), { deep: [{ er: new Uint8Array([9]) }], big: Buffer.alloc(70_000, 7) });
  const object = { z: 1, a: { y: 2, b: [] } };
  room.emit('order', object);
  for (const client of [a, b]) {
    const got = new Map((await drain(client)).map(([name, ...args]) => [name, args]));
    assert.deepEqual(got.get('many'), ['one', [2, 'two'], { three: [3.5, -4, 2 ** 53, 4294967296, null, true] }, null]);
    assert.deepEqual(got.get('none'), []);
    assert.deepEqual(got.get('dates'), ['2026-01-01T00:00:00.000Z', { at: '2026-01-01T00:00:00.123Z' }, '1969-12-31T23:59:59.999Z', late.toJSON()]);
    assert.deepEqual(got.get('odd'), [null, null, {}, { own: 'json' }]);
    assert.deepEqual(got.get('text'), ['é 😀 "\\ \u0000', 'x'.repeat(70_000)]);
    const [first, { deep, big }] = got.get('bytes');
    assert.deepEqual([...first], [0, 1, 2]);
    assert.deepEqual([...deep[0].er], [9]);
    assert.ok(big.length === 70_000 && big.every((byte) => byte === 7));
    assert.equal(JSON.stringify(got.get('order')[0]), JSON.stringify(object));
  }
});

test('volatile, compress, numeric rooms, rooms with odd names, users, another namespace', async () => {
  const [a, b] = await pair('42', 'a#b#', '*?[x]');
  const other = await w.connect({ namespace: '/other' });
  await other.ask('join', '42');
  const ada = await w.connect({ user: 'ada' });
  await eventually('the user is listened for', async () => (await numsub('socket.io#/#$user:ada#')) === 1);
  emitter.to('42').volatile.compress(false).emit('volatile', 1);
  for (const client of [a, b]) assert.deepEqual(await client.next(), ['volatile', 1]);
  emitter.to(42).emit('number', 2);
  emitter.to('a#b#').emit('hash', 3);
  emitter.to('*?[x]').emit('glob', 4);
  emitter.to('$user:ada').emit('user', 5);
  emitter.of('/other').to('42').emit('other', 6);
  emitter.of('other').emit('slash', 7);
  emitter.of('/unknown').emit('unknown', 8);
  for (const client of [a, b]) assert.deepEqual(await drain(client), [['number', 2], ['hash', 3], ['glob', 4]]);
  assert.deepEqual(await drain(ada), [['user', 5]]);
  assert.deepEqual(await drain(other, emitter.of('/other')), [['other', 6], ['slash', 7]]);
});

test('a burst arrives completely and in order', async () => {
  const [a, b] = await pair('burst');
  for (let n = 0; n < 2000; n += 1) (n % 3 ? emitter.to('burst') : emitter.to(['burst', 'else'])).emit('n', n);
  for (const client of [a, b]) assert.deepEqual((await drain(client)).map(([, n]) => n), Array.from({ length: 2000 }, (_, n) => n));
});

test('socketsJoin, socketsLeave and disconnectSockets', async () => {
  const [a, b] = await pair('base');
  const c = await w.connect();
  emitter.in('base').except(b.id).socketsJoin(['x', 7]);
  for (const room of ['x', 7]) {
    await eventually(`a is in ${room}`, async () => (await numsub(`socket.io#/#${room}#`)) === 1);
  }
  emitter.to('x').emit('x', 1);
  emitter.to(7).emit('seven', 1);
  assert.deepEqual(await drain(a), [['x', 1], ['seven', 1]]);
  assert.deepEqual(await drain(b), []);
  emitter.in(a.id).socketsLeave('x');
  await eventually('nobody is in x', async () => (await numsub('socket.io#/#x#')) === 0);
  emitter.socketsJoin('$sid:stolen');
  emitter.in('base').socketsJoin('everyone');
  await eventually('both nodes hear', async () => (await numsub('socket.io#/#everyone#')) === 2);

  emitter.in(a.id).disconnectSockets();
  assert.equal(await a.ended(), 'io server disconnect');
  emitter.in('base').disconnectSockets(true);
  assert.equal(await b.ended(), 'transport close');
  assert.equal(c.disconnected, undefined);
  const before = await total('roomcast_socketio_received_total', { kind: 'server_side_emit' });
  emitter.serverSideEmit('hello', 1, { a: 'b' });
  await eventually('heard by both', async () => (await total('roomcast_socketio_received_total', { kind: 'server_side_emit' })) === before + 2);
});

test('a node without members hears nothing of a room, and rooms come and go with their members', async () => {
  const [a, b] = [await w.connect({}, w.a), await w.connect({}, w.b)];
  await a.ask('join', 'lonely');
  // Redis confirmed the subscription before the join was answered.
  assert.equal(await numsub('socket.io#/#lonely#'), 1);
  assert.equal((await w.redis.call('PUBSUB', 'SHARDNUMSUB', 'roomcast:events:/#lonely'))[1], 1);
  const heard = async (node) => [await node.metric('roomcast_socketio_received_total', { kind: 'broadcast' }), await node.metric('roomcast_cluster_received_total'), await node.metric('roomcast_cluster_unneeded_total')];
  const before = await heard(w.b);
  for (let n = 0; n < 500; n += 1) emitter.to('lonely').emit('n', n);
  for (let n = 0; n < 50; n += 1) await w.a.emit({ namespace: '/', rooms: ['lonely'], event: 'n', args: [500 + n] });
  await eventually('a has all', () => a.inbox.length === 550);
  assert.deepEqual(await heard(w.b), before, 'not one of them');
  await a.ask('leave', 'lonely');
  await eventually('nobody listens', async () => (await numsub('socket.io#/#lonely#')) === 0);
  assert.equal(b.inbox.length, 0);
  const { id } = a;
  assert.equal(await numsub(`socket.io#/#${id}#`), 1);
  a.close();
  await eventually('the socket has no channel', async () => (await numsub(`socket.io#/#${id}#`)) === 0);
  assert.deepEqual(await w.redis.call('PUBSUB', 'NUMSUB', 'socket.io-request#/#'), ['socket.io-request#/#', 0], 'nobody is a server that must answer');
});

test('what a contract has rules for is published once, by them', async () => {
  const [a, b] = await pair('plain');
  for (const client of [a, b]) {
    await client.ask('keep', 'h');
    await client.ask('story', 's');
  }
  // Within a second the nodes agree on the node that publishes emitters' events.
  await eventually('one node publishes', async () => {
    emitter.to('story-s').emit('step', { n: 0 });
    return a.inbox.length > 0 && b.inbox.length > 0;
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  for (const client of [a, b]) client.inbox.length = 0;

  emitter.to('story-s').emit('step', { n: 1 });
  emitter.to('story-s').emit('step', { wrong: true });
  for (let n = 0; n < 20; n += 1) emitter.to('story-s').emit('burst', n);
  emitter.to('story-s').emit('done', 'end');
  for (const client of [a, b]) {
    await eventually('the end', () => client.inbox.some(([name]) => name === 'done'));
    const got = client.inbox.splice(0);
    assert.equal(got[0][0], 'step');
    assert.ok(got[0][1].n === 1 && timestamp(got[0][1].at), 'filled in');
    const bursts = got.filter(([name]) => name === 'burst').map(([, n]) => n);
    assert.ok(bursts.length < 10 && bursts.at(-1) === 19, `conflated: ${bursts}`);
    assert.equal(got.at(-1)[0], 'done', 'nothing after the end');
    assert.equal(got.filter(([name]) => name === 'step').length, 1, 'what the contract refuses is not sent');
  }
  assert.ok((await total('roomcast_socketio_dropped_total', { reason: 'refused' })) >= 1);

  for (let n = 0; n < 5; n += 1) emitter.to('kept-h').emit('k', n);
  for (const client of [a, b]) {
    await eventually('all, once', () => client.inbox.length === 5);
    assert.deepEqual(client.inbox.splice(0).map(([, n]) => n), [0, 1, 2, 3, 4]);
  }
  emitter.to('kept-empty').emit('k', 'nobody is here');
  const late = await w.connect({}, w.b);
  assert.equal((await late.ask('keep', 'h')).success, true);
  assert.deepEqual((await drain(late)).map(([, n]) => n), [0, 1, 2, 3, 4], 'the history has them');
  await late.ask('keep', 'empty');
  assert.deepEqual((await drain(late)).map(([, text]) => text), ['nobody is here'], 'also of a room without members');
});

test('hostile messages are survived and counted', async () => {
  const [a, b] = await pair('safe');
  const junk = [Buffer.from('garbage'), Buffer.from([0x93, 0xa1]), Buffer.from([0xc0]), Buffer.from([0x90]), Buffer.from('{'), Buffer.from(`\x93\xa1u\x81\xa4data\x92\xa1x${'\x91'.repeat(5000)}\x01\x80`, 'latin1'), Buffer.from([0xdd, 0xff, 0xff, 0xff, 0xff]), Buffer.alloc(0)];
  for (let n = 0; n < 200; n += 1) junk.push(Buffer.from(Array.from({ length: n % 40 }, (_, at) => (n * 31 + at * 17) % 256)));
  const before = await total('roomcast_socketio_dropped_total');
  for (const bytes of junk) {
    await publisher.publish('socket.io#/#', bytes);
    await publisher.publish('socket.io#/#safe#', bytes);
    await publisher.publish('socket.io-request#/#', bytes);
    await w.redis.call('SPUBLISH', 'roomcast:events:/', bytes.toString('latin1'));
  }
  for (const text of ['{"type":5,"requestId":"x"}', '{"type":2}', '{"type":99}', 'null', '{"type":4,"close":true}']) await publisher.publish('socket.io-request#/#', text);
  emitter.of('/other').redisClient.publish('socket.io#/#', Buffer.from('\x93\xa1u\x82\xa4data\x91\xa1x\xa3nsp\xa6/other\x80', 'latin1'));
  emitter.to('$all').emit('reserved', 1);
  emitter.to('safe').emit('alive', 1);
  for (const client of [a, b]) assert.deepEqual(await drain(client), [['alive', 1]]);
  assert.ok((await total('roomcast_socketio_dropped_total')) - before >= junk.length * 4);
  for (const reason of ['malformed', 'too_large', 'namespace', 'unknown_type']) assert.ok((await total('roomcast_socketio_dropped_total', { reason })) > 0, reason);
});

test('after Redis was away emitters reach everybody again', async () => {
  const [a, b] = await pair('back');
  await w.redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
  for (const node of w.nodes) await eventually('ready', async () => (await node.get('/ready')).status === 200);
  await eventually('both hear again', async () => (await numsub('socket.io#/#back#')) === 2);
  emitter.to('back').emit('again', 1);
  for (const client of [a, b]) assert.deepEqual(await drain(client), [['again', 1]]);
});
