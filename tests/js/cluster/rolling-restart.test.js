// Three nodes behind nginx are restarted one after the other, with official clients on every transport: each client is
// back within 15 s, no client is told to stay away, and clients of other nodes notice nothing. `make bench-restart`
// does the same with thousands.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Nginx } from '../harness/nginx.js';
import { Node } from '../harness/node.js';
import { stop } from '../harness/process.js';
import { Redis, freePort } from '../harness/redis.js';

const CLIENTS = 240;
const TRANSPORTS = ['websocket', 'polling', 'upgrade'];
// The official client reconnects 0.5 to 1.5 s after its connection was closed. The rest of the time is for a slow
// machine.
const WINDOW = 15_000;
const contracts = ['embedded:chat'];
const env = {
  ROOMCAST_DRAIN__DELAY: '500ms',
  ROOMCAST_DRAIN__DEADLINE: '12s',
  ROOMCAST_DRAIN__LAST_WORDS: '3s',
};

const redis = await Redis.start();
const ports = await Promise.all([freePort(), freePort(), freePort()]);
const boot = (port) =>
  Node.start({ contracts, redis, env: { ...env, ROOMCAST_SERVER__LISTEN: `127.0.0.1:${port}` } });
const nodes = await Promise.all(ports.map(boot));
const nginx = await Nginx.start(ports.map((port) => `127.0.0.1:${port}`));
const front = { url: nginx.url };
const clients = [];

after(async () => {
  clients.forEach(({ client }) => client.close());
  await nginx.stop();
  await Promise.all(nodes.map((node) => node.stop()));
  await redis.stop();
});

const opened = (node) => node.metric('roomcast_connections', { nsp: '/' });
const everybody = () => eventually(
  'everybody is connected',
  async () => (await Promise.all(nodes.map(opened))).reduce((sum, count) => sum + count) === CLIENTS
    && clients.every(({ client }) => client.socket.connected),
  30_000,
);

/** Connects a client, and records each time that it was disconnected. */
async function watched(at) {
  const transport = TRANSPORTS[at % TRANSPORTS.length];
  // nginx can tell these clients apart, although they share an address.
  const extraHeaders = { authorization: `Bearer ${at}` };
  const options = { user: `u${at}`, transport, reconnection: true, withCredentials: true, extraHeaders };
  const client = await Client.connect(front, options);
  const seen = { client, transport, reasons: [], absences: [], marks: new Set(), left: 0, here: true };
  client.socket
    .on('disconnect', (reason) => {
      // This event also reports a connection that ended before it was established.
      if (!seen.here) return;
      seen.reasons.push(reason);
      Object.assign(seen, { left: performance.now(), here: false });
    })
    .on('connect', () => {
      seen.absences.push(performance.now() - seen.left);
      seen.here = true;
    })
    .on('mark', (number) => seen.marks.add(number));
  return seen;
}

test(`a rolling restart under ${CLIENTS} clients`, async () => {
  for (let at = 0; at < CLIENTS; at += 20) {
    clients.push(...(await Promise.all(Array.from({ length: 20 }, (_, more) => watched(at + more)))));
  }
  await everybody();
  const dropped = () => clients.filter(({ reasons }) => reasons.length > 0);
  for (let at = 0; at < nodes.length; at += 1) {
    clients.forEach((seen) => Object.assign(seen, { reasons: [], absences: [] }));
    const there = await opened(nodes[at]);
    assert.ok(there > 0);
    // This event is still queued for the clients when the node is told to end.
    assert.equal((await nodes[at].emit({ namespace: '/', event: 'mark', args: [at] })).remote, 'carried');
    const began = performance.now();
    assert.deepEqual(await stop(nodes[at].process, 'SIGTERM', 20_000), { code: 0, signal: null });
    const took = performance.now() - began;
    await eventually('those of the node are back', () => clients.every(({ client }) => client.socket.connected), 30_000);
    nodes[at] = await boot(ports[at]);
    await everybody();
    assert.equal(dropped().length, there, 'only those of the node were closed');
    const absences = clients.flatMap(({ absences }) => absences);
    for (const { client, transport, reasons, marks } of clients) {
      assert.ok(reasons.length <= 1 && reasons.every((reason) => reason === 'transport close'), `${transport}: ${reasons}`);
      assert.ok(client.socket.active, 'nobody was told to stay away');
      assert.ok(marks.has(at), `${transport} has the last words`);
    }
    const longest = Math.max(...absences);
    assert.ok(longest < WINDOW, `${longest} ms`);
    console.log(`node ${at + 1}: ${there} clients, gone after ${took.toFixed(0)} ms, longest absence ${longest.toFixed(0)} ms`);
  }
  assert.ok((await opened(nodes[0])) + (await opened(nodes[1])) > 0);
});
