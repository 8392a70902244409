// Small words of contracts: several greetings, volatile relays, leaving all rooms of a family.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/words';
const backend = await Backend.start();
const w = await world({ contracts: [join(ROOT, 'tests/js/fixtures/words.toml')], toml: backend.toml('backend') });
after(() => backend.stop());
afterEach(() => w.clear());
let trips = 0;
const newTrip = () => `t${(trips += 1)}`;

async function guest(node) {
  const client = await w.connect({ namespace }, node);
  assert.deepEqual([await client.next(), await client.next()], [['hello'], ['you', client.id]]);
  return client;
}

test('a client is greeted with several events, in their order', async () => {
  await guest();
});

test('one event leaves every room of a family, and no other room', async () => {
  const [ann, ben] = [await guest(), await guest(w.a)];
  const mine = [newTrip(), newTrip(), newTrip()];
  for (const trip of mine) await ann.ask('follow', trip);
  await ann.ask('enter', 'x');
  const ack = await ann.ask('stop');
  assert.deepEqual([ack.success, ack.rooms.toSorted()], [true, mine.map((trip) => `trip:${trip}`).toSorted()]);
  const { body } = await w.b.api('GET', `/api/v1/connections/${ann.id}?namespace=${namespace}`);
  assert.deepEqual(body.rooms, ['other:x']);
  assert.deepEqual(await ann.ask('stop'), { success: true }, 'there is none left');
  for (const trip of mine) {
    await ben.ask('follow', trip);
    await ben.ask('mark', trip, 1);
  }
  assert.deepEqual(await ann.drain(), []);
});

test('a volatile relay reaches the members, and no history keeps it', async () => {
  const trip = newTrip();
  const [ann, ben] = [await guest(), await guest(w.a)];
  for (const client of [ann, ben]) await client.ask('follow', trip);
  await ann.ask('pointer', trip, [1, 2]);
  await ann.ask('mark', trip, [3, 4]);
  assert.deepEqual(await ben.drain(w.b), [['pointer', [1, 2]], ['mark', [3, 4]]]);
  const late = await guest(w.a);
  await late.ask('follow', trip);
  assert.deepEqual(await late.drain(), [['mark', [3, 4]]]);
});

test('errors have the messages of the contract', async () => {
  const client = await guest();
  const { error } = await client.ask('follow', '');
  assert.deepEqual([error.code, error.message], ['INVALID_ROOM', 'There is no such trip']);
  assert.match((await client.ask('nothing')).error.message, /nothing/, 'a code without an own message has that of the node');
  const refused = w.open({ namespace, token: 'rubbish' });
  await assert.rejects(refused.connected(), { message: 'LOG_IN: Please log in' });
});

test('a hook is asked only when its rule is true', async () => {
  const client = await guest();
  assert.deepEqual(await client.ask('price', { amount: 7 }), { ok: true });
  assert.deepEqual([backend.of('event').length, await client.drain()], [0, []]);
  assert.deepEqual(await client.ask('price', { amount: 101 }), { ok: true });
  assert.deepEqual([backend.of('event').length, await client.drain()], [1, [['approved', { amount: 101 }]]]);
  backend.answer = () => ({ ok: false, error: { code: 'TOO_MUCH', message: 'no' } });
  assert.equal((await client.ask('price', { amount: 500 })).error.code, 'TOO_MUCH');
  assert.deepEqual(await client.ask('price', { amount: 100 }), { ok: true });
});

test('a relay reaches every recipient of a list once', async () => {
  const guests = [await guest(), await guest(w.a), await guest()];
  const ids = guests.map(({ id }) => id);
  assert.equal((await guests[0].ask('whisper', [ids[1], ids[2], ids[1]], 'hi')).success, true);
  for (const [at, client] of guests.entries()) {
    assert.deepEqual(await client.drain(w.b), at === 0 ? [] : [['whisper', 'hi']]);
  }
  assert.equal((await guests[0].ask('whisper', [], 'nobody')).success, true);
  for (const to of [undefined, 7, [ids[1], 7], [[ids[1]]], Array.from({ length: 257 }, (_, n) => `u${n}`), 'x'.repeat(300)]) {
    assert.equal((await guests[0].ask('whisper', to, 'x')).error.code, 'INVALID_PAYLOAD', JSON.stringify(to));
  }
  assert.deepEqual(await guests[1].drain(w.b), []);
});
