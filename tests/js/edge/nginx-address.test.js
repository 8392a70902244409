// Behind a real nginx, with each way to send the client's address: the node sees the client's own address, and ignores
// what the client claims. Each address may have one connection, so a client that is taken for another one uses the
// other's place, or is refused.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, afterEach, describe, test } from 'node:test';
import { Client, strangeAddress } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Nginx } from '../harness/nginx.js';
import { Node } from '../harness/node.js';

const contracts = ['embedded:chat'];
const running = [];
let clients = [];

/** A node that trusts only nginx, and nginx in front of it. `balancer`: a second nginx in front, trusted at this address. */
async function world({ front, server = '', balancer = '' }) {
  const toml = `[server]\ntrusted_proxies = ["127.0.0.1"]\nping_interval = "1s"\nping_timeout = "1s"\n${server}\n[limits]\nmax_connections_per_ip = 1\n`;
  const node = await Node.start({ contracts, toml, ready: false });
  const inner = await nginx(node.url.slice(7), { FRONT: front ?? 'x-forwarded-for', FRONT_BALANCER: balancer });
  const address = balancer ? await nginx(inner, { FRONT: 'stream' }) : inner;
  running.push({ end: () => node.stop() });
  return { node, inner, front: { url: `http://${address}`, address } };
}

/** Starts an nginx in front. Returns its address. */
async function nginx(behind, env) {
  const started = await Nginx.start([behind], env);
  running.push({ end: () => started.stop() });
  return started.address;
}

function connect(to, options) {
  const client = new Client(to, { user: 'ann', ...options });
  clients.push(client);
  return client;
}

const refused = async (client) => await assert.rejects(client.connected(), /xhr poll error|websocket error/);

afterEach(() => {
  clients.forEach((client) => client.close());
  clients = [];
});
after(async () => {
  for (const { end } of running) await end();
});

const CLAIMS = {
  'x-forwarded-for': '198.51.100.7',
  'x-real-ip': '198.51.100.7',
  forwarded: 'for=198.51.100.7',
};

for (const [way, given] of [
  ['x-forwarded-for', {}],
  ['forwarded', { front: 'forwarded', server: 'forwarded_header = "forwarded"' }],
  ['stream', { front: 'stream', server: 'proxy_protocol = true' }],
  ['x-forwarded-for, and is told by a balancer with the PROXY protocol', { balancer: '127.0.0.1' }],
  ['forwarded, and is told by a balancer with the PROXY protocol', { front: 'forwarded', server: 'forwarded_header = "forwarded"', balancer: '127.0.0.1' }],
]) {
  describe(`nginx tells by ${way}`, async () => {
    const { node, front: door } = await world(given);

    for (const transport of ['polling', 'websocket', 'upgrade']) {
      test(`${transport}: an address has its one connection, whatever it claims, and others have theirs`, async () => {
        const address = strangeAddress();
        const first = connect(door, { transport, address });
        await first.connected();
        if (transport === 'upgrade') {
          await eventually('it is upgraded', () => first.socket.io.engine.transport.name === 'websocket');
        }
        await refused(connect(door, { transport, address }));
        await refused(connect(door, { transport, address, extraHeaders: CLAIMS }));
        const [second, third] = [strangeAddress(), strangeAddress()];
        await connect(door, { transport, address: second }).connected();
        // A client cannot use up the connections of another address.
        await connect(door, { transport, address: third, extraHeaders: { ...CLAIMS, 'x-forwarded-for': address } }).connected();
        assert.equal((await first.ask('ping')).success, true);
        clients.forEach((client) => client.close());
        await eventually('all places are given back', async () => {
          return (await node.metric('roomcast_limits_present', { what: 'addresses' })) === 0;
        });
      });
    }

    test('a page of this nginx, which has a port of its own, is of the same origin', async () => {
      const page = (origin) => connect(door, { address: strangeAddress(), extraHeaders: { origin } });
      await page(door.url).connected();
      await refused(page('http://127.0.0.1:1'));
      await refused(page('http://127.0.0.1'));
    });

    test('whoever comes past nginx is not believed', async () => {
      const address = strangeAddress();
      const first = connect(node, { address, extraHeaders: CLAIMS });
      await first.connected();
      await refused(connect(node, { address, extraHeaders: { 'x-forwarded-for': '198.51.100.8' } }));
    });
  });
}

test('a balancer that nginx does not know is itself the client, and nobody comes without a header', async () => {
  const { front: door, inner } = await world({ balancer: '192.0.2.1' });
  await connect(door, { transport: 'websocket', address: strangeAddress() }).connected();
  await refused(connect(door, { transport: 'websocket', address: strangeAddress() }));
  await assert.rejects(fetch(`http://${inner}/socket.io/?EIO=4&transport=polling`));
});

test('version 2 of the PROXY protocol is understood as well', async () => {
  const { node, inner } = await world({ balancer: '127.0.0.1' });
  const [host, port] = inner.split(':');
  const source = [203, 0, 113, 9];
  const header = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x11, 0, 12, ...source, 127, 0, 0, 1, 0x30, 0x39, 0, 80];
  const ask = async () => {
    const socket = net.connect({ host, port });
    let told = '';
    socket.on('data', (data) => (told += data));
    socket.write(Buffer.from(header));
    socket.write('GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n');
    await eventually('an answer', () => socket.closed);
    return told.slice(9, 12);
  };
  assert.deepEqual([await ask(), await ask()], ['200', '429'], 'one connection for the address in the header');
  // This request comes from nginx's own address, which has no connection yet, so it is accepted.
  assert.equal((await fetch(`${node.url}/socket.io/?EIO=4&transport=polling`)).status, 200);
});
