// nginx in front of nodes: a long-polling session stays on its node, an upgrade works, and clients of a dead node
// reconnect.
import assert from 'node:assert/strict';
import { after, afterEach, describe, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Nginx } from '../harness/nginx.js';
import { Node } from '../harness/node.js';
import { Redis } from '../harness/redis.js';

const POLLS = 200;
const contracts = ['embedded:chat'];
const redis = await Redis.start();
const nodes = await Promise.all([1, 2, 3].map(() => Node.start({ contracts, redis })));
const nginx = await Nginx.start(nodes.map(({ url }) => url.slice(7)));
const front = { url: nginx.url, emit: (body) => nodes[0].emit(body) };
let clients = [];

afterEach(() => {
  clients.forEach((client) => client.close());
  clients = [];
});
after(async () => {
  await nginx.stop();
  await Promise.all(nodes.map((node) => node.stop()));
  await redis.stop();
});

async function connect(options) {
  const client = await Client.connect(front, options);
  clients.push(client);
  return client;
}

const opened = (node) => node.metric('roomcast_connections', { nsp: '/' });

for (const withCredentials of [true, false]) {
  describe(withCredentials ? 'clients that keep cookies' : 'clients that keep none', () => {
    test(`a long-polling session stays on its node over ${POLLS} polls`, async () => {
      const alice = await connect({ user: 'alice', transport: 'polling', withCredentials });
      for (let count = 0; count < POLLS; count += 1) assert.equal((await alice.ask('ping')).success, true);
      assert.equal(alice.inbox.length, POLLS);
      assert.equal(alice.disconnected, undefined);
    });

    test('an upgrade works', async () => {
      const alice = await connect({ user: 'alice', transport: 'upgrade', withCredentials });
      assert.equal(alice.socket.io.engine.transport.name, 'websocket');
      assert.equal((await alice.ask('ping')).success, true);
    });
  });
}

test('the cookie is set once, and decides', async () => {
  const url = `${front.url}/socket.io/?EIO=4&transport=polling`;
  const first = await fetch(url);
  await first.text();
  const [cookie] = first.headers.get('set-cookie').split(';');
  assert.match(cookie, /^roomcast=[0-9a-f]{3,32}$/);
  assert.match(first.headers.get('set-cookie'), /HttpOnly/);
  for (let count = 0; count < 10; count += 1) {
    const { sid } = JSON.parse((await (await fetch(url, { headers: { cookie } })).text()).slice(1));
    const again = await fetch(`${url}&sid=${sid}`, { method: 'POST', body: '40', headers: { cookie } });
    assert.equal(again.status, 200);
    assert.equal(again.headers.get('set-cookie'), null);
  }
});

test('sessions that begin with WebSocket are spread over all nodes, and hear each other', async () => {
  const many = await Promise.all(
    Array.from({ length: 60 }, (_, at) => connect({ user: `u${at}`, transport: 'websocket' })),
  );
  for (const node of nodes) assert.ok((await opened(node)) >= 3, `${await opened(node)} on one node`);
  for (const client of many) await client.ask('room:join', { room: 'all' });
  await many[0].ask('message', { from: 'u0', room: 'all', content: 'c', type: 't' });
  for (const client of many) {
    await eventually('the message arrives', () => client.inbox.some(([event]) => event === 'message'));
  }
});

test('what a client claims about its address does not pass, nor does it see the API', async () => {
  for (const path of ['/metrics', '/api/v1/events', '/', '/live']) {
    assert.equal((await fetch(front.url + path)).status, 404, path);
  }
});

test("a dead node's clients come back on the others, and the others' clients notice nothing", async () => {
  const many = await Promise.all(
    Array.from({ length: 30 }, (_, at) =>
      connect({
        user: `u${at}`,
        transport: ['websocket', 'polling', 'upgrade'][at % 3],
        reconnection: true,
        reconnectionDelay: 50,
        reconnectionDelayMax: 200,
        // nginx can tell these clients apart, although they share an address and keep no cookies.
        extraHeaders: { authorization: `Bearer ${at}` },
      }),
    ),
  );
  const [dead, ...alive] = nodes;
  const everybody = async () => (await Promise.all(nodes.map(opened))).reduce((sum, count) => sum + count);
  await eventually('those of earlier tests are gone', async () => (await everybody()) === many.length);
  const [there, elsewhere] = [await opened(dead), await Promise.all(alive.map(opened))];
  assert.ok(there > 0);
  await dead.stop('SIGKILL');
  const total = many.length;
  await eventually('everybody is back', async () => {
    const now = await Promise.all(alive.map(opened));
    return now[0] + now[1] === total && many.every(({ socket }) => socket.connected);
  }, 30_000);
  const dropped = many.filter((client) => client.disconnected).length;
  assert.equal(dropped, there, `${there} were on the dead node, ${elsewhere} on the others`);
});
