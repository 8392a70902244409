// How the official client reports each rejection. docs/limits.md has the same table.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { ENGINE } from '../harness/world.js';

const contracts = [join(ROOT, 'tests/js/fixtures/alone/limited.toml')];
const FAST = { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 100 };
const nodes = [];
let clients = [];
let addresses = 0;

async function start(server, limits) {
  const toml = `[server]\ntrusted_proxies = ["127.0.0.1"]\n${server}\n[limits]\n${limits}\n`;
  const node = await Node.start({ contracts, toml });
  nodes.push(node);
  return node;
}

/** Headers of a client with a new address, as a trusted proxy sends them. */
const stranger = () => ({ 'x-forwarded-for': `192.0.2.${(addresses += 1)}` });

function open(node, extraHeaders, options = {}) {
  const client = new Client(node, { extraHeaders, ...options });
  clients.push(client);
  client.errors = [];
  client.socket.on('connect_error', (error) => client.errors.push(error));
  return client;
}

afterEach(() => {
  clients.forEach((client) => client.close());
  clients = [];
});
after(async () => await Promise.all(nodes.map((node) => node.stop())));

const crowded = await start('max_connections = 1', '');
const oneEach = await start('', 'max_connections_per_ip = 1');
const slow = await start('', 'connections_per_ip = "1/1s"');
const picky = await start('cors_origins = ["https://app.example"]', 'max_sockets_per_user = 1');

const ERROR = { polling: 'xhr poll error', websocket: 'websocket error' };

for (const transport of ['polling', 'websocket']) {
  for (const [what, node, status] of [
    ['the node has all connections that it may have', crowded, 503],
    ['the address has', oneEach, 429],
    ['the address has come too often', slow, 429],
  ]) {
    test(`${transport}: refused because ${what}, the client comes back by itself`, async () => {
      const headers = stranger();
      await eventually('nobody is left of the last test', async () => (await node.metric('roomcast_connections')) === 0);
      const first = open(node, headers, { transport });
      await first.connected();
      const second = open(node, headers, { transport, ...FAST });
      await eventually('it is refused', () => second.errors.length > 0);
      assert.equal(second.errors[0].message, ERROR[transport]);
      if (transport === 'polling') assert.equal(second.errors[0].context.status, status);
      assert.equal(second.socket.active, true);
      first.close();
      await eventually('it is in', () => second.socket.connected);
    });
  }

  test(`${transport}: a page of another origin is refused, and its client tries again all the same`, async () => {
    const evil = open(picky, { ...stranger(), origin: 'https://evil.example' }, { transport, ...FAST });
    await eventually('it is refused again and again', () => evil.errors.length >= 3);
    assert.equal(evil.errors[0].message, ERROR[transport]);
    if (transport === 'polling') assert.equal(evil.errors[0].context.status, 403);
    assert.equal(evil.socket.active, true);
    const good = open(picky, { ...stranger(), origin: 'https://app.example' }, { transport });
    await good.connected();
  });

  test(`${transport}: refused by a contract's rate, the client stays away until it is told to come`, async () => {
    const headers = stranger();
    for (let at = 0; at < 2; at += 1) await open(picky, headers, { transport }).connected();
    const third = open(picky, headers, { transport, ...FAST });
    await eventually('it is refused', () => third.errors.length > 0);
    const [error] = third.errors;
    assert.match(error.message, /^RATE_LIMIT_EXCEEDED: .*; try again in \d+ ms$/);
    if (ENGINE === 'native' && transport === 'websocket') {
      assert.equal(error.data.code, 'RATE_LIMIT_EXCEEDED');
      assert.ok(error.data.retryAfterMs > 20_000 && error.data.retryAfterMs <= 30_000, error.data.retryAfterMs);
    }
    assert.equal(third.socket.active, false);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(third.errors.length, 1, 'it has not tried again');
  });

  test(`${transport}: refused because the user has all sockets that it may have, the client may come later`, async () => {
    const first = open(picky, stranger(), { transport, user: `ann-${transport}` });
    await first.connected();
    const second = open(picky, stranger(), { transport, user: `ann-${transport}`, ...FAST });
    await eventually('it is refused', () => second.errors.length > 0);
    assert.match(second.errors[0].message, /^TOO_MANY_CONNECTIONS: this user has 1 connection/);
    assert.equal(second.socket.active, false);
    first.close();
    await eventually('it is let in when it comes again', () => {
      if (!second.socket.active) second.socket.connect();
      return second.socket.connected;
    });
  });

  test(`${transport}: an event that comes too soon is told how long to wait, in the ack or by the contract's event`, async () => {
    const client = open(picky, stranger(), { transport });
    await client.connected();
    assert.equal((await client.ask('seldom')).success, true);
    const { success, error } = await client.ask('seldom');
    assert.equal(success, false);
    assert.equal(error.code, 'RATE_LIMIT_EXCEEDED');
    assert.ok(error.retryAfterMs > 50_000 && error.retryAfterMs <= 60_000, JSON.stringify(error));
    client.send('seldom');
    const told = await eventually('it is told', () => client.inbox.find(([name]) => name === 'problem'));
    assert.equal(told[1].code, 'RATE_LIMIT_EXCEEDED');
    assert.ok(told[1].retryAfterMs > 50_000, JSON.stringify(told));
  });
}

test('what was refused is counted by its reason, and nothing is left', async () => {
  const refused = async (node, reason) => await node.metric('roomcast_handshakes_refused_total', { reason });
  assert.ok((await refused(crowded, 'crowded')) >= 2);
  assert.ok((await refused(oneEach, 'ip_connections')) >= 2);
  assert.ok((await refused(slow, 'ip_rate')) >= 2);
  assert.ok((await refused(picky, 'origin')) >= 6);
  assert.ok((await picky.metric('roomcast_connections_refused_total', { code: 'TOO_MANY_CONNECTIONS' })) >= 2);
  for (const node of nodes) {
    for (const what of ['addresses', 'users']) {
      await eventually(`no ${what}`, async () => (await node.metric('roomcast_limits_present', { what })) === 0);
    }
  }
});
