// Events whose names have values of the client's event.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { ROOT } from '../harness/node.js';
import { ENGINE, world } from '../harness/world.js';

const namespace = '/names';
const w = await world({ contracts: [join(ROOT, 'tests/js/fixtures/names.toml')] });
afterEach(() => w.clear());
let trips = 0;

async function pair() {
  const trip = `t${(trips += 1)}`;
  const clients = [await w.connect({ namespace }), await w.connect({ namespace }, w.a)];
  for (const client of clients) await client.ask('follow', trip);
  return [trip, ...clients];
}

test('relays and replies have the values in their names', async () => {
  const [trip, ann, ben] = await pair();
  assert.equal((await ann.ask('position', { trip, at: [1, 2], kind: 7 })).success, true);
  assert.deepEqual(await ben.next(), [`position/${trip}`, { at: [1, 2] }]);
  assert.deepEqual((await ann.drain()).map(([name]) => name).sort(), [`position/${trip}`, 'sent/7']);
  const labelled = await w.b.metric('roomcast_events_published_total', { event: 'position' });
  assert.ok(labelled >= 1, 'metrics name the event of the contract');
  assert.equal(await w.b.metric('roomcast_events_published_total', { event: `position/${trip}` }), 0);
});

test('values that make no name refuse the whole event', async () => {
  const [trip, ann, ben] = await pair();
  for (const kind of [undefined, '', null, { a: 1 }, 1.5, 'a\nb', 'x'.repeat(200)]) {
    assert.equal((await ann.ask('position', { trip, kind })).error.code, 'INVALID_PAYLOAD', String(kind));
  }
  assert.deepEqual(await ben.drain(w.b), [], 'nothing was relayed');
});

test('a client says only names that the schema permits, and no event of a backend', async () => {
  const [trip, ann, ben] = await pair();
  for (const name of ['news', 'connect', 'disconnect', 'client-', 'client-A', 7]) {
    assert.equal((await ann.ask('whisper', trip, name, 1)).error.code, 'INVALID_PAYLOAD', String(name));
  }
  assert.equal((await ann.ask('whisper', trip, 'client-typing', { on: true })).success, true);
  assert.equal((await ann.ask('whisper', trip, 'client-\\', 'x')).success, true);
  assert.deepEqual(await ben.drain(w.b), [['client-typing', { on: true }], ['client-\\', 'x']]);
});

test('the event that a client leaves behind has the values of its event in its name', async () => {
  const [trip, ann, ben] = await pair();
  assert.equal((await ann.ask('typing', trip)).error.code, 'INVALID_PAYLOAD');
  assert.deepEqual(await ben.drain(w.b), [], 'without the name of what it leaves behind, it does nothing');
  assert.equal((await ann.ask('typing', trip, 'ann')).success, true);
  ann.socket.disconnect();
  assert.deepEqual([await ben.next(), await ben.next()], [['typing', 'ann'], ['stopped/ann']]);
});

test('a name may have a backslash', async () => {
  const client = await w.connect({ namespace }, w.a);
  // Clients send such a name to the native engine only: socketioxide closes the connection.
  client.send(ENGINE === 'native' ? 'back\\slash' : 'ping');
  assert.deepEqual(await client.next(), ['for\\ward']);
  const event = { contract: 'names', event: 'App\\Events\\Done', data: { ok: 1 } };
  assert.equal((await w.a.api('POST', '/api/v1/events', event)).status, 202);
  assert.deepEqual(await client.next(), ['App\\Events\\Done', { ok: 1 }]);
});
