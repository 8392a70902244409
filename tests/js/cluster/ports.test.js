// Emitters in other languages reach clients on nodes with both wire formats. One emitter is from PyPI; of the others,
// recorded bytes are sent.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { createClient } from 'redis';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

// The Python environment with the emitter, which scripts/test installs.
const PYTHON = join(ROOT, '.cache/emitter-0.1.5/bin/python');
const fixture = (name) => join(ROOT, 'tests/js/fixtures', name);
const contracts = [fixture('alone/emitter.toml'), fixture('alone/emitter-other.toml')];
const w = await world({ contracts, mode: 'cluster' });
const other = await Node.start({ contracts, redis: w.redis, env: { ROOMCAST_REDIS__WIRE: 'socketio' } });
const publisher = createClient({ url: w.redis.url });
publisher.on('error', () => {});
await publisher.connect();
after(async () => {
  publisher.disconnect();
  await other.stop();
});
afterEach(() => w.clear());

/** Sends events with the unmodified `socket.io-emitter` from PyPI. */
async function python(events) {
  assert.ok(existsSync(PYTHON), `${PYTHON} is missing: run \`scripts/test cluster/ports\`, which installs the emitter of PyPI`);
  const child = spawn(PYTHON, [fixture('emit.py'), String(w.redis.port)], { stdio: ['pipe', 'inherit', 'inherit'] });
  child.stdin.end(JSON.stringify(events));
  const [code] = await once(child, 'close');
  assert.equal(code, 0);
}

async function members(room, namespace = '/') {
  const clients = [];
  for (const node of [...w.nodes, other]) {
    const client = await w.connect({ namespace }, node);
    assert.equal((await client.ask('join', room)).success, true);
    clients.push(client);
  }
  return clients;
}

async function got(client, last) {
  await eventually(`${last} arrives`, () => client.inbox.some(([name]) => name === last));
  return client.inbox.splice(0);
}

test('the emitter of PyPI: to all, to rooms, to a client, to another namespace, and what a contract has rules for', async () => {
  const clients = await members('r');
  const [one] = clients;
  const stranger = await w.connect({ namespace: '/other' });
  for (const client of clients) await client.ask('story', 's');
  await eventually('one node publishes', async () => {
    await python([{ rooms: ['story-s'], args: ['step', { n: 0 }] }]);
    return clients.every(({ inbox }) => inbox.length > 0);
  });
  await python([{ rooms: ['story-s'], args: ['step', { n: 1 }] }]);
  for (const { inbox } of clients) await eventually('the step', () => inbox.some(([, { n }]) => n === 1));
  for (const client of clients) {
    const { n, at } = client.inbox.splice(0).at(-1)[1];
    assert.ok(n === 1 && at, 'filled in');
  }
  await python([
    { args: ['all', 1, { two: [2.5, null, 'é'] }] },
    { rooms: ['r'], args: ['room', true] },
    { rooms: [one.id], args: ['one'] },
    { rooms: ['nobody'], args: ['nothing'] },
    { namespace: '/other', args: ['other', 7] },
    { args: ['end'] },
  ]);
  for (const client of clients) {
    const expected = [['all', 1, { two: [2.5, null, 'é'] }], ['room', true], ...(client === one ? [['one']] : []), ['end']];
    assert.deepEqual(await got(client, 'end'), expected);
  }
  assert.deepEqual(await got(stranger, 'other'), [['other', 7]]);
});

test('nothing, in each way in which it is written', async () => {
  const clients = await members('r');
  // `["emitter", { type, data: [name, n], nsp }, { rooms, except, flags }]`
  const head = (name, n, type, nsp) => Buffer.concat([Buffer.from(`\x93\xa7emitter\x83\xa4type${type}\xa4data\x92\xa4${name}`, 'latin1'), Buffer.from([n]), Buffer.from('\xa3nsp', 'latin1'), nsp]);
  const options = (rooms, nothing) => Buffer.concat([Buffer.from('\x83\xa5rooms', 'latin1'), rooms, Buffer.from('\xa6except', 'latin1'), nothing, Buffer.from('\xa5flags', 'latin1'), nothing]);
  const root = Buffer.from('\xa1/', 'latin1');
  const nothings = ['\x00', '\x80', '\x90', '\xa0', '\xc0', '\xc2', '\xca\x00\x00\x00\x00', '\xdc\x00\x00', '\xd9\x00'].map((text) => Buffer.from(text, 'latin1'));
  for (const [n, nothing] of nothings.entries()) {
    await publisher.publish('socket.io#/#', Buffer.concat([head('each', n, '\x02', root), options(nothing, nothing)]));
    const room = Buffer.from('\x91\xa1r', 'latin1');
    await publisher.publish('socket.io#/#r#', Buffer.concat([head('room', n, '\x05', Buffer.from([0xc0])), options(room, nothing)]));
  }
  await publisher.publish('socket.io#/#', Buffer.concat([head('last', 0, '\x02', root), Buffer.from([0x80])]));
  const expected = nothings.flatMap((_, n) => [['each', n], ['room', n]]);
  for (const client of clients) assert.deepEqual(await got(client, 'last'), [...expected, ['last', 0]]);

  const request = (body) => publisher.publish('socket.io-request#/#', JSON.stringify(body));
  await request({ type: 2, opts: { rooms: ['r'], except: '' }, rooms: ['made'] });
  await eventually('all nodes have the room', async () => (await w.redis.call('PUBSUB', 'NUMSUB', 'socket.io#/#made#'))[1] === 3);
  await request({ type: 4, opts: { rooms: ['made'], except: null }, close: 0 });
  for (const client of clients) assert.equal(await client.ended(), 'io server disconnect');
  for (const node of [...w.nodes, other]) assert.equal(await node.metric('roomcast_socketio_dropped_total', { reason: 'malformed' }), 0);
});
