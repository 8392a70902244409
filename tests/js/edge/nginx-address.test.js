// Behind a real nginx, in each way that it can say who a client is: the node sees the client's own address, and nothing that the
// client claims. One connection for each address: whoever is taken for somebody else gets another's place, or none.
import assert from 'node:assert/strict';
import net from 'node:net';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { Client, strangeAddress } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { start, stop, temporary } from '../harness/process.js';
import { freePort } from '../harness/redis.js';

const contracts = ['embedded:chat'];
const running = [];
let clients = [];

/** A node that trusts nginx alone, and nginx in front of it. */
async function world(front, server, more) {
  const toml = `[server]\ntrusted_proxies = ["127.0.0.1"]\nping_interval = "1s"\nping_timeout = "1s"\n${server}\n[limits]\nmax_connections_per_ip = 1\n`;
  const node = await Node.start({ contracts, toml, ready: false });
  const address = `127.0.0.1:${await freePort()}`;
  const nginx = start(join(ROOT, 'scripts/nginx-front'), [temporary('nginx'), address, node.url.slice(7)], {
    env: { FRONT: front, FRONT_MORE: more ?? '' },
  });
  running.push({ node, nginx });
  await eventually('nginx listens', async () => await open(address));
  return { node, front: { url: `http://${address}`, address } };
}

async function open(address) {
  const [host, port] = address.split(':');
  return await new Promise((resolve) => {
    const socket = net.connect({ host, port, localAddress: strangeAddress() });
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
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
  for (const { node, nginx } of running) {
    await stop(nginx, 'SIGQUIT', 1_000);
    await node.stop();
  }
});

const CLAIMS = {
  'x-forwarded-for': '198.51.100.7',
  'x-real-ip': '198.51.100.7',
  forwarded: 'for=198.51.100.7',
};

for (const [front, server] of [
  ['x-forwarded-for', ''],
  ['forwarded', 'forwarded_header = "forwarded"'],
  ['stream', 'proxy_protocol = true'],
]) {
  describe(`nginx tells by ${front}`, async () => {
    const { node, front: door } = await world(front, server);

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
        // Nobody can use up somebody else's place.
        await connect(door, { transport, address: third, extraHeaders: { ...CLAIMS, 'x-forwarded-for': address } }).connected();
        assert.equal((await first.ask('ping')).success, true);
        clients.forEach((client) => client.close());
        await eventually('all places are given back', async () => {
          return (await node.metric('roomcast_limits_present', { what: 'addresses' })) === 0;
        });
      });
    }

    test('whoever comes past nginx is not believed', async () => {
      const address = strangeAddress();
      const first = connect(node, { address, extraHeaders: CLAIMS });
      await first.connected();
      await refused(connect(node, { address, extraHeaders: { 'x-forwarded-for': '198.51.100.8' } }));
    });
  });
}

test('a balancer in front of nginx announces clients by the PROXY protocol', async () => {
  // As roomcast-listen.conf has it.
  const more = 'set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;';
  const { node, front } = await world('x-forwarded-for', '', more);
  const [host, port] = front.address.split(':');
  assert.ok(node.alive && host && port);
  const plain = await fetch(`${front.url}/socket.io/?EIO=4&transport=polling`);
  assert.equal(plain.status, 200);
  await plain.text();
});
