// The last member leaves a room while others join: the node ends its subscription and starts it again, under traffic
// from the other node.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { eventually } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const contract = fileURLToPath(new URL('../soak/soak.toml', import.meta.url));
const namespace = '/soak';
const room = { hall: 'h' };
const ROUNDS = 150;
const worlds = new Map();
for (const wire of ['compact', 'socketio']) {
  worlds.set(wire, await world({ contracts: [contract], mode: 'cluster', env: { ROOMCAST_REDIS__WIRE: wire } }));
}

/** Sends events on the other node, up to a thousand per second, until told to stop. */
async function speak(w) {
  const client = await w.connect({ namespace }, w.a);
  const state = { sent: 0, stop: false };
  state.done = (async () => {
    while (!state.stop) {
      client.send('say', { ...room, n: (state.sent += 1) });
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  return state;
}

/** Joins the room. Resolves to the number of events that had arrived when the join was acknowledged. */
function enter(client) {
  return new Promise((resolve) => client.socket.emit('enter', room, () => resolve(client.inbox.length)));
}

const numbers = (events) => events.map(([, { n }]) => n);

for (const [wire, w] of worlds) {
  test(`${wire}: nothing is missing from the acknowledgement of a join on, and nothing is counted as missed`, async () => {
    let [inside, outside] = [await w.connect({ namespace }), await w.connect({ namespace })];
    const sending = await speak(w);
    try {
      await inside.ask('enter', room);
      for (let round = 0; round < ROUNDS; round += 1) {
        outside.inbox.length = 0;
        const [told] = await Promise.all([enter(outside), inside.ask('leave', room)]);
        [inside, outside] = [outside, inside];
        const { sent } = sending;
        await eventually('what was said since then comes', () => numbers(inside.inbox).at(-1) > sent);
        const got = numbers(inside.inbox);
        const hole = got.findIndex((n, at) => at > 0 && (at > told ? n !== got[at - 1] + 1 : n <= got[at - 1]));
        assert.equal(hole, -1, `round ${round}: ${got.slice(hole - 2, hole + 3)}, told after ${told}, of which ${hole} come`);
        assert.ok(told >= got.length || got[told] <= sent + 1, 'what was said after the acknowledgement is among them');
      }
    } finally {
      sending.stop = true;
    }
    await sending.done;
    for (const node of w.nodes) assert.equal(await node.metric('roomcast_cluster_missed_total'), 0);
    assert.equal(await w.b.metric('roomcast_cluster_unconfirmed_joins_total'), 0);
  });
}
