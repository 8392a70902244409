// Upgrades that fail: the official client with its defaults behind proxies that break WebSockets. The client's session
// continues by polling, and failed attempts are not counted as upgrades.
import assert from 'node:assert/strict';
import http from 'node:http';
import net from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';

const ACKS = 12;
const node = await Node.start({ contracts: [join(ROOT, 'tests/js/fixtures/mirror.toml')] });
const target = Number(new URL(node.url).port);
after(() => node.stop());

/** A proxy that forwards HTTP. `upgrade(client, server, head)` handles WebSockets. */
async function proxy(t, upgrade) {
  const seen = { polls: 0 };
  const sockets = new Set();
  const server = http.createServer((request, response) => {
    if (request.method === 'GET') seen.polls += 1;
    const { method, url: path, headers } = request;
    const onward = http.request({ host: '127.0.0.1', port: target, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  });
  server.on('upgrade', (request, client) => {
    const onward = net.connect(target, '127.0.0.1');
    for (const socket of [client, onward]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
    const lines = request.rawHeaders.reduce((all, text, at) => all + text + (at % 2 ? '\r\n' : ': '), '');
    upgrade(client, onward, `GET ${request.url} HTTP/1.1\r\n${lines}\r\n`);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    sockets.forEach((socket) => socket.destroy());
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}`, seen };
}

const proxies = {
  'passes 101 and no frames': (client, onward, head) => {
    onward.write(head);
    onward.once('data', (data) => client.write(data));
  },
  'cuts at the probe': (client, onward, head) => {
    onward.write(head);
    onward.once('data', (data) => client.write(data));
    client.once('data', () => {
      client.destroy();
      onward.destroy();
    });
  },
  'passes the probe on and not its answer': (client, onward, head) => {
    onward.write(head);
    onward.once('data', (data) => client.write(data));
    client.on('data', (data) => onward.write(data));
  },
  'drops the header Upgrade': (client, onward, head) => {
    onward.write(head.replace(/^(upgrade|connection): .*\r\n/gim, ''));
    onward.on('data', (data) => client.write(data));
  },
};

for (const [how, upgrade] of Object.entries(proxies)) {
  test(`a client goes on by polling behind a proxy that ${how}`, async (t) => {
    const upgrades = await node.metric('roomcast_transport_upgrades_total');
    const { url, seen } = await proxy(t, upgrade);
    const client = new Client({ url }, { namespace: '/mirror', transport: 'upgrade' });
    t.after(() => client.close());
    await client.connected();
    for (let n = 0; n < ACKS; n += 1) {
      assert.equal(await client.ask('echo', n), n);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    assert.equal(client.disconnected, undefined);
    assert.equal(client.socket.io.engine.transport.name, 'polling');
    assert.ok(seen.polls < 3 * ACKS, `${seen.polls} polls`);
    assert.equal(await node.metric('roomcast_transports', { transport: 'websocket' }), 0);
    assert.equal(await node.metric('roomcast_transports', { transport: 'polling' }), 1);
    assert.equal(await node.metric('roomcast_transport_upgrades_total'), upgrades);
    client.close();
    await eventually('it is gone', async () => (await node.metric('roomcast_transports', { transport: 'polling' })) === 0);
  });
}

test('an upgrade that was refused ties nothing to a pooled connection', async () => {
  const path = '/socket.io/?EIO=4&transport=';
  const session = async () => {
    const { sid } = JSON.parse((await (await fetch(`${node.url}${path}polling`)).text()).slice(1));
    return sid;
  };
  const [first, second] = [await session(), await session()];
  const pooled = net.connect(target, '127.0.0.1');
  let got = '';
  let closed = false;
  pooled.on('data', (data) => (got += data)).on('close', () => (closed = true));
  pooled.write(`GET ${path}websocket&sid=${first} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await eventually('the upgrade is refused', () => got.includes('HTTP/1.1 400'));
  pooled.write(`GET ${path}polling&sid=${second} HTTP/1.1\r\nHost: x\r\n\r\n`);
  assert.equal(await node.metric('roomcast_transports', { transport: 'websocket' }), 0);
  // The first session ends; the second polls on the same connection.
  await (await fetch(`${node.url}${path}polling&sid=${first}`, { method: 'POST', body: '1' })).text();
  await eventually('the first is gone', async () => (await node.metric('roomcast_transports', { transport: 'polling' })) === 1);
  assert.equal(closed, false);
  pooled.destroy();
});
