// Clients cannot exhaust a node's file descriptors, its memory or its time.
import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, binary } from '../harness/node.js';
import { temporary } from '../harness/process.js';
import { ENGINE } from '../harness/world.js';

const FILES = 256;

/** Writes a script that runs the binary with few file descriptors. */
function narrow() {
  const script = join(temporary('narrow'), 'roomcast');
  writeFileSync(script, `#!/bin/sh\nulimit -n ${FILES}\nexec ${binary()} "$@"\n`);
  chmodSync(script, 0o755);
  return script;
}

process.env.JS_TEST_BIN = narrow();
const node = await Node.start({ contracts: ['embedded:chat'], toml: '[server]\nhandshake_timeout = "60s"\n' });
const sockets = [];
const said = (pattern) => node.process.lines.filter(({ text }) => pattern.test(text)).length;
const api = async (path) => await fetch(node.apiUrl + path, { signal: AbortSignal.timeout(5_000) });

after(async () => {
  sockets.forEach((socket) => socket.destroy());
  await node.stop();
});

/** Opens a TCP connection. `came` is the text that was received on it, and `over` the time of its end. */
function connect(url, data = '') {
  const { hostname, port } = new URL(url);
  const socket = net.connect({ host: hostname, port });
  socket.came = '';
  socket.on('data', (part) => (socket.came += part.toString('latin1')));
  socket.on('error', () => {}).on('close', () => (socket.over = Date.now()));
  socket.write(data);
  sockets.push(socket);
  return socket;
}

// These two connections wait for their time-outs while the other tests run.
const began = Date.now();
const silent = connect(node.apiUrl);
const slow = connect(node.apiUrl, 'GET /live HTTP/1.1\r\nHost: x\r\n');

for (const [what, url] of [['clients', node.url], ['the API', node.apiUrl]]) {
  test(`the listener of ${what} answers a head of more than 16 kB with 431`, async () => {
    const head = (size) => `GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: ${'c'.repeat(size)}\r\n\r\n`;
    const [fits, large, huge] = [15_000, 17_000, 500_000].map((size) => connect(url, head(size)));
    await eventually('all have ended', () => fits.over && large.over && huge.over);
    assert.match(fits.came, /^HTTP\/1.1 200 /);
    assert.match(large.came, /^HTTP\/1.1 431 /);
    // The client may still be sending when the connection ends.
    assert.match(huge.came, /^(HTTP\/1.1 431 |$)/);
  });
}

test('a handshake of WebSocket has the same limit', async () => {
  const head = (size) =>
    'GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
    `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: ${'c'.repeat(size)}\r\n\r\n`;
  const [fits, large] = [15_000, 17_000].map((size) => connect(node.url, head(size)));
  await eventually('the large one has ended', () => large.over);
  await eventually('the other is open', () => fits.came.startsWith('HTTP/1.1 101 '));
  assert.match(large.came, /^HTTP\/1.1 431 /);
  fits.destroy();
});

test('metrics are compressed where that is asked for', async () => {
  // fetch asks for compression by default.
  const compressed = await api('/metrics');
  assert.equal(compressed.headers.get('content-encoding'), 'gzip');
  assert.match(await compressed.text(), /^# HELP /);
  const plain = await fetch(`${node.apiUrl}/metrics`, { headers: { 'accept-encoding': 'identity' } });
  assert.equal(plain.headers.get('content-encoding'), null);
  assert.equal(plain.headers.get('vary'), 'accept-encoding');
});

test('with no file descriptor left for clients the API answers, and the log stays short', async () => {
  const flood = Array.from({ length: FILES + 150 }, () => connect(node.url));
  await eventually('those that do not fit are refused', async () => {
    return (await node.metric('roomcast_handshakes_refused_total', { reason: 'files' })) >= 150;
  });
  const refused = await eventually('they have ended', () => {
    const over = flood.filter((socket) => socket.over);
    return over.length >= 150 && over;
  });
  assert.ok(refused.some((socket) => socket.came.startsWith('HTTP/1.1 503 ')), 'one was told');
  for (let at = 0; at < 20; at += 1) {
    assert.equal((await api('/live')).status, 200);
    const metrics = await (await api('/metrics')).text();
    assert.ok(Number(/^process_open_fds (\d+)$/m.exec(metrics)[1]) < FILES);
  }
  const seconds = (Date.now() - began) / 1000;
  const complaints = said(/too few file descriptors are left/);
  assert.ok(complaints >= 1 && complaints <= seconds + 1, `${complaints} lines in ${seconds} s`);

  flood.forEach((socket) => socket.destroy());
  const client = await eventually('a client gets in again', async () => {
    const client = new Client(node, { user: 'ann' });
    await client.connected();
    return client;
  });
  client.close();
});

test('of what handshakes say, no more is kept than may hold a token', async () => {
  const resident = async () => await node.metric('process_resident_memory_bytes');
  // Handshakes are sent in groups of 20. Each opens a polling session that never connects to a namespace, and that the
  // node keeps until server.connect_timeout.
  const cookie = `a=${'c'.repeat(15_000)}`;
  const handshake = async () => {
    const query = `EIO=4&transport=polling&t=${'q'.repeat(500)}`;
    const headers = { cookie, authorization: `Bearer ${'t'.repeat(100)}` };
    const answer = await fetch(`${node.url}/socket.io/?${query}`, { headers });
    assert.equal(answer.status, 200);
    await answer.text();
  };
  const many = async (count) => {
    for (let at = 0; at < count; at += 20) await Promise.all(Array.from({ length: 20 }, handshake));
  };
  await many(200);
  const before = await resident();
  await many(2_000);
  const grown = (await resident()) - before;
  // All cookies together are 30 MB. A session of socketioxide itself takes 11 kB.
  const most = ENGINE === 'native' ? 12_000_000 : 28_000_000;
  assert.ok(grown < most, `${grown} bytes for 2,000 handshakes`);
});

test('a connection to the API that says nothing whole within 10 s is closed', async () => {
  await eventually('both have ended', () => silent.over && slow.over, 20_000);
  for (const socket of [silent, slow]) {
    assert.ok(socket.over - began >= 9_000, `${socket.over - began} ms`);
    assert.equal(socket.came, '');
  }
  assert.equal(await node.metric('roomcast_api_connections_refused_total', { reason: 'silent' }), 2);
});
