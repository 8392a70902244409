// Metadata: what a socket has said about itself, and what a hook has set.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { ROOT } from '../harness/node.js';
import { comeBack, cut } from '../harness/returning.js';
import { ENGINE, world } from '../harness/world.js';

const namespace = '/metadata';
const backend = await Backend.start(({ data: { user } }) => ({ ok: true, metadata: { plan: user.anonymous ? 'free' : 'paid' } }));
const w = await world({ contracts: [join(ROOT, 'tests/js/fixtures/metadata.toml')], toml: backend.toml('backend') });
after(() => backend.stop());
afterEach(() => w.clear());
let tables = 0;

async function guest(node) {
  const client = await w.connect({ namespace }, node);
  assert.deepEqual(await client.next(), ['hello', { plan: 'free' }], 'the greeting reads what the hook has set');
  return client;
}

test('an event sets members, and later events, rooms and rules read them', async () => {
  const table = `t${(tables += 1)}`;
  const [ann, ben] = [await guest(), await guest(w.a)];
  assert.equal((await ann.ask('say', 'too early')).error.code, 'INVALID_ROOM');
  assert.equal((await ann.ask('ready')).error.code, 'AUTHORIZATION_FAILED');
  for (const [client, name] of [[ann, 'Ann'], [ben, 'Ben']]) {
    assert.deepEqual(await client.ask('sit', table, name), { success: true, room: `table:${table}` });
  }
  assert.equal((await ann.ask('say', 'hello')).success, true);
  const all = { plan: 'free', name: 'Ann', at: `table:${table}`, table };
  const said = ['say', { by: 'Ann', text: 'hello', all }];
  // With recovery, the last argument is the offset of the event.
  assert.deepEqual((await ben.next()).slice(0, 2), said);
  assert.deepEqual((await ann.next()).slice(0, 2), said);
  assert.deepEqual(await ann.ask('who'), all);
  assert.equal((await ann.ask('ready')).success, true);
  await ann.ask('leave', table);
  assert.equal((await ann.ask('ready')).error.code, 'AUTHORIZATION_FAILED', 'it is not in the room any more');
});

test('a client does not change what a hook has set', async () => {
  const client = await guest();
  assert.equal((await client.ask('enter')).error.code, 'AUTHORIZATION_FAILED');
  assert.equal((await client.ask('describe', { plan: 'paid', mood: 'fine' })).success, true);
  assert.deepEqual(await client.ask('who'), { plan: 'free', mood: 'fine' });
  assert.equal((await client.ask('enter')).error.code, 'AUTHORIZATION_FAILED');
});

test('a member keeps its value when an event has none for it', async () => {
  const client = await guest();
  await client.ask('sit', 'a', 'Ann');
  await client.ask('sit', 'b');
  assert.deepEqual(await client.ask('who'), { plan: 'free', name: 'Ann', at: 'table:b', table: 'b' });
});

if (ENGINE === 'native') {
  test('a recovered client keeps its metadata, and the hook still owns its members', async () => {
    const client = await guest();
    await client.ask('sit', 'r', 'Ann');
    // An event gives the client the offset without which it is not recovered.
    await client.ask('say', 'x');
    await client.drain(w.b);
    const before = await client.ask('who');
    await cut(client);
    backend.answer = () => ({ ok: true });
    assert.equal(await comeBack(client, w.a), true);
    backend.answer = ({ data: { user } }) => ({ ok: true, metadata: { plan: user.anonymous ? 'free' : 'paid' } });
    assert.deepEqual(await client.ask('who'), before);
    await client.ask('describe', { plan: 'paid', name: 'Ben' });
    assert.deepEqual(await client.ask('who'), { ...before, name: 'Ben' });
  });
}
