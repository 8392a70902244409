// The environment variables that the operators of contract 5 already use.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually, like, text, timestamp } from '../harness/eventually.js';
import { Node } from '../harness/node.js';
import { Redis, freePort } from '../harness/redis.js';
import { token } from '../harness/token.js';

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

/** Opens a polling session. Returns the response and the open packet. The session connects and is closed again. */
async function handshake(headers = {}) {
  const url = `${node.url}/ws/?EIO=4&transport=polling`;
  const response = await fetch(url, { headers });
  const text = await response.text();
  if (!response.ok) return { response };
  const opened = JSON.parse(text.slice(1));
  const body = `40${JSON.stringify({ token: token({ sub: 'alice' }) })}\x1e1`;
  await (await fetch(`${url}&sid=${opened.sid}`, { method: 'POST', body, headers })).text();
  return { response, opened };
}

async function connect(options, to = node) {
  const client = new Client(to, { user: 'alice', path: '/ws/', ...options });
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
  const { opened } = await handshake();
  like(
    { interval: opened.pingInterval, timeout: opened.pingTimeout, payload: opened.maxPayload },
    { interval: 11_000, timeout: 7_000, payload: 50_000 },
  );
  const client = await connect({});
  client.send('message', { from: 'alice', to: 'bob', type: 't', content: 'x'.repeat(60_000) });
  assert.ok(await client.ended());
});

test('WEBSOCKET_CORS_ORIGIN, separated by commas', async () => {
  const allowed = async (origin) => (await handshake({ origin })).response.headers.get('access-control-allow-origin');
  assert.equal(await allowed('https://one.example'), 'https://one.example');
  assert.equal(await allowed('https://two.example'), 'https://two.example');
  assert.equal(await allowed('https://three.example'), null);
});

test('WEBSOCKET_MAX_CONNECTIONS', async () => {
  const small = await Node.start({ contracts: ['embedded:chat'], env: { WEBSOCKET_MAX_CONNECTIONS: '3' } });
  after(() => small.stop());
  const path = '/socket.io/';
  const inside = [await connect({ path }, small), await connect({ path }, small), await connect({ path }, small)];
  await assert.rejects(connect({ path }, small));
  inside[0].close();
  await eventually('there is room for another', async () => await connect({ path }, small).catch(() => undefined));
});

test('REDIS_URL', async () => {
  const { body } = await node.get('/ready');
  like({ connected: body.websocket.redis.connected, at: body.websocket.timestamp }, { connected: true, at: timestamp });
  like(body.status, text);
});
