// Tests the endpoints /live, /ready and /metrics.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually, like, number, text, timestamp } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const w = await world({ contracts: ['embedded:chat', 'embedded:jobs-feed'] });

test('/live answers on both listeners', async () => {
  assert.equal((await w.a.get('/live')).status, 200);
  assert.equal((await w.a.api('GET', '/live', undefined, { key: null })).status, 200);
});

test('/ready tells the numbers, and they are true', async () => {
  const [alice, feed] = [await w.connect({ user: 'alice' }), await w.connect({ namespace: '/jobs' })];
  await alice.ask('room:join', { room: 'one' });
  await alice.ask('room:join', { room: 'two' });
  await feed.ask('subscribe:jobs');
  for (const ask of [() => w.b.get('/ready'), () => w.b.api('GET', '/ready', undefined, { key: null })]) {
    const { status, body } = await ask();
    assert.equal(status, 200);
    assert.equal(typeof body.status, 'string');
    const { connections, rooms, uptime, redis, timestamp: at, status: websocket } = body.websocket;
    like(
      { connections, rooms, uptime, at, websocket },
      { connections: 2, rooms: 3, uptime: number, at: timestamp, websocket: text },
    );
    if (w.mode === 'cluster') like({ connected: redis.connected, latency: redis.latency }, { connected: true, latency: number });
  }
  w.clear();
  await eventually('the numbers fall', async () => {
    const { body } = await w.b.get('/ready');
    return body.websocket.connections === 0 && body.websocket.rooms === 0;
  });
});

test('/metrics counts connections, rooms, events and deliveries', async () => {
  const counts = async () => ({
    opened: await w.b.metric('roomcast_connections_opened_total', { nsp: '/' }),
    closed: await w.b.metric('roomcast_connections_closed_total', { nsp: '/' }),
    now: await w.b.metric('roomcast_connections', { nsp: '/' }),
    rooms: await w.b.metric('roomcast_rooms', { nsp: '/' }),
    received: await w.b.metric('roomcast_events_received_total', { contract: 'chat', event: 'message', result: 'ok' }),
    deliveries: await w.b.metric('roomcast_deliveries_total', { nsp: '/' }),
  });
  const before = await counts();
  const [alice, bob] = [await w.connect({ user: 'alice' }), await w.connect({ user: 'bob' })];
  for (const client of [alice, bob]) await client.ask('room:join', { room: 'r' });
  await alice.ask('message', { from: 'alice', room: 'r', content: 'c', type: 't' });
  const during = await counts();
  assert.equal(during.opened - before.opened, 2);
  assert.equal(during.now, 2);
  assert.equal(during.rooms, 1);
  assert.equal(during.received - before.received, 1);
  assert.ok(during.deliveries - before.deliveries >= 2);
  w.clear();
  await eventually('the gauges are back at zero', async () => {
    const after = await counts();
    return after.now === 0 && after.rooms === 0 && after.closed - before.closed === 2;
  });
});
