// Presence: joins and leaves are sent as events, and clients that are gone are no longer listed as members.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/told';
const HEARTBEAT_MS = 500;
const contracts = ['told.toml', 'told-open.toml'].map((file) => join(ROOT, 'tests/js/fixtures', file));
const toml = `[presence]\nheartbeat = "${HEARTBEAT_MS}ms"\n`;
const w = await world({ contracts, toml });
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
const connect = (user, node = last) => w.connect({ namespace, user }, node);
let dens = 0;
const newDen = () => `d${(dens += 1)}`;

afterEach(() => w.clear());

const count = async (node, den) => {
  const { status, body } = await node.api('GET', `/api/v1/counts?namespace=${encodeURIComponent(namespace)}&room=den:${den}`);
  assert.equal(status, 200);
  return body.connections;
};
const told = (client) => client.inbox.filter(([event]) => event.startsWith('member:'));

describe('joins and leaves', () => {
  test('are told once for a user with several sockets, wherever they are', async () => {
    const den = newDen();
    const watcher = await connect('watcher');
    await watcher.ask('enter', den);
    const [one, two] = [await connect('alice', first), await connect('alice', last)];
    await one.ask('enter', den);
    await eventually('the join is told', () => told(watcher).some(([, { userId }]) => userId === 'alice'));
    await two.ask('enter', den);
    await eventually('three are counted', async () => (await count(first, den)) === 3);
    one.close();
    await eventually('two are counted', async () => (await count(first, den)) === 2);
    await two.ask('exit', den);
    await eventually('the leave is told', () => told(watcher).some(([event]) => event === 'member:left'));
    const alices = told(watcher).filter(([, { userId }]) => userId === 'alice');
    assert.deepEqual(alices.map(([event]) => event), ['member:joined', 'member:left']);
  });
});

describe('joins and leaves of anonymous users', () => {
  test('are told of each socket by itself', async () => {
    const open = (node) => w.connect({ namespace: '/told-open' }, node);
    const watcher = await open(last);
    await watcher.ask('enter', 'y');
    const [one, two] = [await open(first), await open(last)];
    const seen = (client) => told(watcher).filter(([, { socketId }]) => socketId === client.id);
    for (const client of [one, two]) {
      await client.ask('enter', 'y');
      await eventually('the join is told', () => seen(client).length === 1);
    }
    await one.ask('exit', 'y');
    const gone = two.id;
    two.close();
    await eventually('both leaves are told', () => told(watcher).filter(([event]) => event === 'member:left').length === 2);
    const payload = { userId: null, socketId: one.id, room: 'yard:y' };
    assert.deepEqual(seen(one), [['member:joined', payload], ['member:left', payload]]);
    const others = told(watcher).filter(([, { socketId }]) => socketId === gone);
    assert.deepEqual(others.map(([event]) => event), ['member:joined', 'member:left']);
  });
});

if (w.redis) {
  describe('a node that dies', () => {
    test('leaves no ghost for longer than two heartbeats, and its leaves are told', async () => {
      const den = newDen();
      const watcher = await connect('watcher', first);
      await watcher.ask('enter', den);
      for (let round = 0; round < 3; round += 1) {
        const doomed = await Node.start({ contracts, redis: w.redis, toml });
        after(() => doomed.stop('SIGKILL'));
        const users = [1, 2, 3].map((at) => `ghost-${round}-${at}`);
        for (const user of users) await (await connect(user, doomed)).ask('enter', den);
        await eventually('all are counted', async () => (await count(first, den)) === 4);
        await doomed.stop('SIGKILL');
        const died = Date.now();
        await eventually('no ghost is left', async () => (await count(first, den)) === 1, 2 * HEARTBEAT_MS + 300);
        assert.ok(Date.now() - died <= 2 * HEARTBEAT_MS + 300);
        const left = () => told(watcher).filter(([event]) => event === 'member:left').map(([, { userId }]) => userId);
        await eventually('their leaves are told', () => users.every((user) => left().includes(user)));
        assert.equal(new Set(left()).size, left().length, 'once each');
      }
    });
  });
}
