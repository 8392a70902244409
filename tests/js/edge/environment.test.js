// The settings that the operators of contract 5 already have in their environment.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { like, text, timestamp } from '../harness/eventually.js';
import { Node } from '../harness/node.js';
import { Redis, freePort } from '../harness/redis.js';

const redis = await Redis.start();
const port = await freePort();
const node = await Node.start({
  contracts: ['embedded:chat'],
  env: {
    ROOMCAST_SERVER__LISTEN: undefined,
    WEBSOCKET_PORT: String(port),
    WEBSOCKET_PATH: '/ws/',
    WEBSOCKET_CORS_ORIGIN: 'https://one.example, https://two.example',
    WEBSOCKET_PING_TIMEOUT: '7000',
    WEBSOCKET_PING_INTERVAL: '11000',
    WEBSOCKET_MAX_BUFFER_SIZE: '50000',
    WEBSOCKET_MAX_CONNECTIONS: '3',
    WEBSOCKET_RATE_LIMIT_WINDOW: '60000',
    REDIS_URL: redis.url,
  },
});
const clients = [];
after(async () => {
  clients.forEach((client) => client.close());
  await node.stop();
  await redis.stop();
});
const url = () => `${node.url}/ws/?EIO=4&transport=polling`;

async function connect(options) {
  const client = new Client(node, { user: 'alice', path: '/ws/', ...options });
  clients.push(client);
  await client.connected();
  return client;
}

test('WEBSOCKET_PORT and WEBSOCKET_PATH', async () => {
  assert.equal(new URL(node.url).port, String(port));
  assert.equal((await fetch(`${node.url}/socket.io/?EIO=4&transport=polling`)).status, 404);
  assert.equal((await (await connect({})).ask('ping')).success, true);
});

test('WEBSOCKET_PING_TIMEOUT, WEBSOCKET_PING_INTERVAL and WEBSOCKET_MAX_BUFFER_SIZE', async () => {
  const opened = JSON.parse((await (await fetch(url())).text()).slice(1));
  like(
    { interval: opened.pingInterval, timeout: opened.pingTimeout, payload: opened.maxPayload },
    { interval: 11_000, timeout: 7_000, payload: 50_000 },
  );
  const client = await connect({});
  client.send('message', { from: 'alice', to: 'bob', type: 't', content: 'x'.repeat(60_000) });
  assert.ok(await client.ended());
});

test('WEBSOCKET_CORS_ORIGIN, separated by commas', async () => {
  const allowed = async (origin) => (await fetch(url(), { headers: { origin } })).headers.get('access-control-allow-origin');
  assert.equal(await allowed('https://one.example'), 'https://one.example');
  assert.equal(await allowed('https://two.example'), 'https://two.example');
  assert.equal(await allowed('https://three.example'), null);
});

test('WEBSOCKET_MAX_CONNECTIONS', async () => {
  clients.splice(0).forEach((client) => client.close());
  const inside = [];
  while (inside.length < 3) {
    try {
      inside.push(await connect({}));
    } catch {
      // Those of the tests before may still be on their way out.
    }
  }
  await assert.rejects(connect({}));
});

test('REDIS_URL', async () => {
  const { body } = await node.get('/ready');
  like({ connected: body.websocket.redis.connected, at: body.websocket.timestamp }, { connected: true, at: timestamp });
  like(body.status, text);
});
