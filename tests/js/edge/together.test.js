// Tests all five contracts on one cluster: three share a namespace, and no contract gives access to the rooms of
// another.
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { strangeAddress } from '../harness/client.js';
import { like, text, timestamp } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const hook = '[hooks.songs]\nurl = "http://127.0.0.1:9/unused"\nsecret = "a-hook-secret-of-the-tests-0123456789"\n';
const w = await world({ contracts: ['embedded:*'], toml: hook });

afterEach(() => w.clear());

test('one client uses three contracts on one connection', async () => {
  const alice = await w.connect({ user: 'alice', claims: { rooms: ['job:1', 'generation-1'] } });
  assert.equal((await alice.ask('job:subscribe', { jobId: '1' })).success, true);
  assert.equal((await alice.ask('join-generation', '1')).success, true);
  assert.equal((await alice.ask('room:join', { room: 'lobby' })).success, true);
  await w.a.publish('harmonia-jobs', 'job:status', { id: '1', status: 's' });
  await w.a.publish('harmonia-songs', 'generation-timeout', { generationId: '1', stage: 'audio', timeoutAfter: 5 });
  await w.a.publish('chat', 'message', { from: 'x', room: 'lobby', content: 'c', type: 't' });
  like(await alice.drain(w.a), [
    ['room:joined', { room: 'lobby', userId: 'alice', timestamp }],
    ['job:status', { id: '1', status: 's' }],
    ['generation-timeout', { generationId: '1', stage: 'audio', timeoutAfter: 5 }],
    ['message', { from: 'x', room: 'lobby', content: 'c', type: 't', id: text, timestamp }],
  ]);
});

test("a chat room cannot have the name of another contract's room", async () => {
  const mallory = await w.connect({ user: 'mallory' });
  for (const room of ['job:1', 'user:alice:jobs', 'admin:jobs', 'generation-1']) {
    like(await mallory.ask('room:join', { room }), { code: 'INVALID_ROOM', message: text }, room);
  }
  await w.a.publish('harmonia-jobs', 'job:completed', { job: { id: '1', userId: 'alice' } });
  await w.a.publish('harmonia-songs', 'generation-timeout', { generationId: '1', stage: 'audio', timeoutAfter: 5 });
  assert.deepEqual(await mallory.drain(w.a), []);
});

test('nor can a chat message be addressed to one', async () => {
  const alice = await w.connect({ user: 'alice', claims: { rooms: ['job:1'] } });
  await alice.ask('job:subscribe', { jobId: '1' });
  const mallory = await w.connect({ user: 'mallory' });
  for (const address of [{ room: 'job:1' }, { to: 'job:1' }, { to: 'admin:jobs' }]) {
    await mallory.ask('message', { from: 'mallory', content: 'forged', type: 't', ...address });
  }
  assert.deepEqual(await alice.drain(w.b), []);
});

test('the namespaces keep to themselves', async () => {
  const feed = await w.connect({ namespace: '/jobs' });
  const live = await w.connect({ namespace: '/realtime', address: strangeAddress() });
  const root = await w.connect({ user: 'alice' });
  await feed.ask('subscribe:jobs', { jobId: '1' });
  await w.a.publish('harmonia-jobs', 'job:status', { id: '1', status: 's' });
  await w.a.publish('vendhub-realtime', 'queue:stats', {});
  await live.next();
  for (const client of [feed, live, root]) assert.deepEqual(await client.drain(w.a), []);
  await w.a.publish('jobs-feed', 'job:update', { jobId: '1', status: 's' });
  like(await feed.drain(w.a), [['job:update', { jobId: '1', status: 's', timestamp }]]);
});
