// Rooms with so many members that an event is delivered to them in slices.
import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const MEMBERS = 1_100;
const w = await world({ contracts: ['embedded:chat'] });
const far = w.nodes.at(0);

afterEach(() => w.clear());

/** Connects this number of clients with different users to one node, and makes them join a room. */
async function crowd(room, members = MEMBERS) {
  const clients = [];
  while (clients.length < members) {
    const more = Array.from({ length: Math.min(100, members - clients.length) }, async (_, at) => {
      const client = await w.connect({ user: `m${clients.length + at}` });
      await client.ask('room:join', { room });
      return client;
    });
    clients.push(...(await Promise.all(more)));
  }
  return clients;
}

const numbers = (client) => client.inbox.filter(([name]) => name === 'message').map(([, { content }]) => content);
const range = (from, to, step = 1) => Array.from({ length: Math.ceil((to - from) / step) }, (_, at) => from + at * step);

test('everybody hears everything in its order, also what is sent to few behind it', async () => {
  const members = await crowd('crowd');
  const [alice, bob] = [members[0], members.at(-1)];
  const asked = range(0, 40).map((content) => {
    const to = content % 2 === 0 ? { room: 'crowd' } : { to: bob.user };
    // All events are sent at once, so the last acknowledgement comes only after every earlier delivery.
    const event = { from: alice.user, type: 'n', content, ...to };
    return alice.socket.timeout(20_000).emitWithAck('message', event);
  });
  for (const ack of await Promise.all(asked)) assert.equal(ack.success, true);
  await eventually('all arrive', () => members.every((client) => numbers(client).length >= 20), 20_000);
  await eventually('bob has all', () => numbers(bob).length >= 40);
  assert.deepEqual(numbers(bob), range(0, 40));
  for (const client of members.slice(0, -1)) assert.deepEqual(numbers(client), range(0, 40, 2));
  // The second series of events is published one after the other, and nobody may miss one of them.
  for (const content of range(40, 60)) {
    const answer = await far.publish('chat', 'message', { from: 'b', room: 'crowd', type: 'n', content });
    if (w.mode === 'memory') assert.equal(answer.local, MEMBERS);
  }
  await eventually('those arrive, too', () => members.every((client) => numbers(client).at(-1) === 59), 20_000);
  for (const client of members.slice(0, -1)) assert.deepEqual(numbers(client), [...range(0, 40, 2), ...range(40, 60)]);
  assert.equal(await w.b.metric('roomcast_publish_waiting'), 0);
  assert.equal(await w.b.metric('roomcast_deliveries_dropped_total'), 0);
});

test('who has left hears nothing more, and who stays misses nothing, while others leave and go', async () => {
  const members = await crowd('busy');
  let said = 0;
  let leaving = true;
  const published = (async () => {
    for (; said < 60 || leaving; said += 1) {
      await far.publish('chat', 'message', { from: 'b', room: 'busy', type: 'n', content: said });
    }
  })();
  const left = new Map();
  for (const [at, client] of members.entries()) {
    if (left.size > 20) break;
    if (at % 3 === 1) {
      await client.ask('room:leave', { room: 'busy' });
      left.set(client, numbers(client).length);
    } else if (at % 3 === 2) {
      client.close();
    }
  }
  leaving = false;
  await published;
  const stayed = members.filter((client) => !left.has(client) && client.socket.connected);
  await eventually('who stays has all', () => stayed.every((client) => numbers(client).at(-1) === said - 1), 20_000);
  for (const client of stayed) assert.deepEqual(numbers(client), range(0, said));
  for (const [client, heard] of left) assert.deepEqual(numbers(client), range(0, heard));
});
