// nginx in front of nodes: limits, TLS, client addresses, and nodes that are taken out.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import tls from 'node:tls';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Nginx } from '../harness/nginx.js';
import { Node, ROOT } from '../harness/node.js';
import { Redis } from '../harness/redis.js';

const contracts = ['embedded:chat'];
const [ca, key, cert] = ['ca.pem', 'server-key.pem', 'server.pem'].map((file) => join(ROOT, 'tests/keys', file));
const ending = [];
after(async () => {
  await Promise.all(ending.reverse().map((end) => end()));
});

/** Starts nginx in front of these nodes. */
async function front(nodes, env) {
  const nginx = await Nginx.start(nodes, env);
  ending.push(() => nginx.stop());
  return nginx;
}

/** Starts a server instead of a node. Its answer contains the headers of the request. */
async function mirror() {
  const server = http.createServer((request, response) => response.end(JSON.stringify(request.headers)));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  ending.push(() => server.close());
  return `127.0.0.1:${server.address().port}`;
}

const SESSION = '/socket.io/?EIO=4&transport=polling';
const CLAIMS = { 'x-forwarded-for': '6.6.6.6', 'x-real-ip': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-forwarded-proto': 'https' };

test('what a client claims about its address does not pass', async () => {
  const { url } = await front([await mirror()]);
  const seen = await (await fetch(url + SESSION, { headers: CLAIMS })).json();
  assert.deepEqual(
    [seen['x-forwarded-for'], seen['x-real-ip'], seen.forwarded, seen['x-forwarded-proto']],
    ['127.0.0.1', '127.0.0.1', undefined, 'http'],
  );
});

test('behind a balancer that is named, it is the balancer that is believed', async () => {
  const FRONT_MORE = 'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; real_ip_recursive on;';
  const { url } = await front([await mirror()], { FRONT_MORE });
  // The balancer added the last of these addresses.
  const headers = { 'x-forwarded-for': '6.6.6.6, 9.9.9.9' };
  assert.equal((await (await fetch(url + SESSION, { headers })).json())['x-forwarded-for'], '9.9.9.9');
});

test('a node that trusts nginx counts the client, whoever it claims to be', async () => {
  const toml = '[limits]\nconnections_per_ip = "3/1m"\n[server]\ntrusted_proxies = ["127.0.0.1"]\n';
  const node = await Node.start({ contracts, toml });
  ending.push(() => node.stop());
  const door = await front([node.url.slice(7)]);
  const results = [];
  for (let at = 0; at < 6; at += 1) {
    const extraHeaders = { 'x-forwarded-for': `6.6.6.${at}`, forwarded: `for=6.6.6.${at}` };
    const connecting = Client.connect(door, { user: 'ada', transport: 'websocket', extraHeaders });
    results.push(await connecting.then((client) => (client.close(), true), () => false));
  }
  assert.deepEqual(results, [true, true, true, false, false, false]);
});

test('an address that opens sessions without end is slowed, and its open sessions are not', async () => {
  const node = await Node.start({ contracts });
  ending.push(() => node.stop());
  const { url } = await front([node.url.slice(7)]);
  const opened = await fetch(url + SESSION);
  const [cookie] = opened.headers.get('set-cookie').split(';');
  const { sid } = JSON.parse((await opened.text()).slice(1));
  const codes = await Promise.all(Array.from({ length: 700 }, async () => {
    const answer = await fetch(url + SESSION, { headers: { cookie } });
    await answer.arrayBuffer();
    return answer.status;
  }));
  const count = (code) => codes.filter((found) => found === code).length;
  assert.ok(count(200) >= 500 && count(429) > 0 && count(200) + count(429) === 700, `${count(200)} and ${count(429)}`);
  assert.equal((await fetch(`${url}${SESSION}&sid=${sid}`, { method: 'POST', body: '40', headers: { cookie } })).status, 200);
});

test('TLS is 1.2 or 1.3 with forward secrecy, and the cookie is for other origins, too', async () => {
  const node = await Node.start({ contracts });
  ending.push(() => node.stop());
  const door = await front([node.url.slice(7)], { FRONT_TLS: `${cert}:${key}` });
  const hello = (options) =>
    new Promise((resolve, reject) => {
      const socket = tls.connect({ host: '127.0.0.1', port: door.port, ca: readFileSync(ca), servername: 'localhost', checkServerIdentity: () => undefined, ...options });
      socket.once('secureConnect', () => {
        const told = { protocol: socket.getProtocol(), ...socket.getEphemeralKeyInfo() };
        socket.destroy();
        resolve(told);
      });
      socket.once('error', reject);
    });
  assert.equal((await hello({})).protocol, 'TLSv1.3');
  const older = await hello({ maxVersion: 'TLSv1.2' });
  assert.deepEqual([older.protocol, older.type], ['TLSv1.2', 'ECDH']);
  await assert.rejects(hello({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
  await assert.rejects(hello({ maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES128-SHA:AES128-GCM-SHA256' }));
  const client = await Client.connect(door, { user: 'ada', transport: 'websocket', ca: readFileSync(ca), rejectUnauthorized: false });
  assert.equal((await client.ask('ping')).success, true);
  client.close();
});

test("a node that is taken out keeps its WebSockets, gets nobody new, and the others' clients notice nothing", async () => {
  const redis = await Redis.start();
  ending.push(() => redis.stop());
  // With a short heartbeat the node soon notices a client that left without closing its connection.
  const env = { ROOMCAST_SERVER__PING_INTERVAL: '2s', ROOMCAST_SERVER__PING_TIMEOUT: '2s' };
  const nodes = await Promise.all([1, 2, 3].map(() => Node.start({ contracts, redis, env })));
  nodes.forEach((node) => ending.push(() => node.stop()));
  const door = await front(nodes.map(({ url }) => url.slice(7)), { FRONT_RELOADS: '1' });
  const opened = (node) => node.metric('roomcast_connections', { nsp: '/' });
  const connect = (at, transport) =>
    Client.connect(door, {
      user: `u${at}`,
      transport,
      reconnection: true,
      reconnectionDelay: 50,
      reconnectionDelayMax: 200,
      extraHeaders: { authorization: `Bearer ${at}` },
    });
  const sockets = await Promise.all(Array.from({ length: 18 }, (_, at) => connect(at, 'websocket')));
  const polling = await Promise.all(Array.from({ length: 18 }, (_, at) => connect(100 + at, 'polling')));
  ending.push(() => [...sockets, ...polling].forEach((client) => client.close()));
  const [out, ...others] = nodes;
  const before = await opened(out);
  assert.ok(before > 0);

  const file = join(door.folder, 'roomcast-nodes.conf');
  writeFileSync(file, readFileSync(file, 'utf8').replace(`server ${out.url.slice(7)} `, `server ${out.url.slice(7)} down `));
  door.process.child.kill('SIGHUP');
  await eventually('its long-polling clients are elsewhere', async () => {
    const now = await Promise.all(nodes.map(opened));
    return now[0] + now[1] + now[2] === 36 && polling.every(({ socket }) => socket.connected) && now[0] < before;
  }, 30_000);
  assert.deepEqual(sockets.filter(({ disconnected }) => disconnected), [], 'no WebSocket was cut');
  const stayed = await opened(out);
  const moved = polling.filter(({ disconnected }) => disconnected).length;
  assert.equal(moved, before - stayed, 'only those of the node moved');
  const late = await Promise.all(Array.from({ length: 12 }, (_, at) => connect(200 + at, at % 2 ? 'polling' : 'websocket')));
  ending.push(() => late.forEach((client) => client.close()));
  assert.equal(await opened(out), stayed, 'nobody new');

  await out.stop('SIGTERM');
  await eventually('everybody is on the others', async () => {
    const now = await Promise.all(others.map(opened));
    return now[0] + now[1] === 48 && sockets.every(({ socket }) => socket.connected);
  }, 30_000);
  assert.equal(sockets.filter(({ disconnected }) => disconnected).length, stayed);
});
