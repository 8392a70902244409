// Redis dies and restarts under traffic.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Node } from '../harness/node.js';
import { Redis } from '../harness/redis.js';
import { world } from '../harness/world.js';

const namespace = '/jobs';
const BACK_WITHIN_MS = 2_000;
const w = await world({ contracts: ['embedded:jobs-feed'], mode: 'cluster' });

const notCarried = () => w.a.metric('roomcast_cluster_not_carried_total');
const missed = () => w.b.metric('roomcast_cluster_missed_total');

/** Publishes numbers to all clients, each as soon as the previous one is answered, until told to stop. */
function traffic() {
  const state = { sent: 0, remote: new Map(), slowest: 0, stop: false };
  state.done = (async () => {
    while (!state.stop) {
      const began = Date.now();
      const { remote, local, reason } = await w.a.publish('jobs-feed', 'job:update', { jobId: 'j', status: 's', data: state.sent });
      assert.equal(local, 1, 'local delivery never waits for Redis');
      state.slowest = Math.max(state.slowest, Date.now() - began);
      state.remote.set(state.sent, reason ?? remote);
      state.sent += 1;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  })();
  return state;
}

const numbers = (events) => events.filter(([event]) => event === 'job:update').map(([, { data }]) => data);

test('local clients lose nothing, remote ones are back in time, and what they lack is counted exactly', async () => {
  const [near, remote] = [await w.connect({ namespace }, w.a), await w.connect({ namespace }, w.b)];
  for (const client of [near, remote]) await client.ask('subscribe:jobs');
  for (let round = 0; round < 3; round += 1) {
    const before = { notCarried: await notCarried(), missed: await missed() };
    near.inbox.length = 0;
    remote.inbox.length = 0;
    const sending = traffic();
    await eventually('traffic crosses', () => numbers(remote.inbox).length > 20);

    await w.redis.kill();
    const atDeath = sending.sent;
    await eventually('traffic goes on without Redis', () => sending.sent > atDeath + 50, 60_000);
    for (const node of w.nodes) {
      await eventually('the node says that Redis is away', async () => (await node.get('/ready')).body.status === 'degraded');
      const ready = await node.get('/ready');
      assert.equal(ready.status, 200, 'it goes on taking clients');
      assert.match(ready.body.reasons[0], /Redis is away/);
      assert.equal((await node.get('/live')).status, 200);
    }
    assert.ok(numbers(near.inbox).length > atDeath);

    await w.redis.up();
    const back = Date.now();
    const beforeReturn = sending.sent;
    await eventually('traffic crosses again', () => numbers(remote.inbox).at(-1) >= beforeReturn, BACK_WITHIN_MS);
    assert.ok(Date.now() - back <= BACK_WITHIN_MS);
    for (const node of w.nodes) {
      await eventually('the node is ready again', async () => (await node.get('/ready')).body.status === 'ready');
    }
    sending.stop = true;
    await sending.done;
    // The markers of `drain` were sent after all other events, so no event is in flight after them.
    const [toNear, toRemote] = await Promise.all([near, remote].map(async (client) => numbers(await client.drain(w.a))));
    assert.deepEqual(toNear, Array.from({ length: sending.sent }, (_, at) => at), 'all, in order, once');
    const unordered = toRemote.findIndex((number, at) => at > 0 && number <= toRemote[at - 1]);
    assert.equal(unordered, -1, `in order, once: ${toRemote.slice(unordered - 1, unordered + 2)}`);
    const lacking = sending.sent - toRemote.length;
    assert.ok(lacking > 0);
    assert.equal((await missed()) - before.missed, lacking, 'the receiving node knows exactly what it lacks');
    const received = new Set(toRemote);
    const answers = [...sending.remote];
    const lost = answers.filter(([number, told]) => told === 'carried' && !received.has(number));
    // Redis answers the publisher before it writes to subscribers, so Redis may die after its answer and before that.
    // One event is published at a time, so at most one event is affected: the last one before Redis died.
    const last = answers.findIndex(([, told]) => told !== 'carried') - 1;
    assert.deepEqual(lost, lost.length ? [answers[last]] : [], 'what was told to be carried has arrived');
    const kept = answers.filter(([number, told]) => told === 'away' && received.has(number));
    assert.deepEqual(kept, [], 'what was told not to be has not; only "timeout" and "unheard" may or may not have');
    const told = answers.filter(([, answer]) => answer !== 'carried').length;
    assert.equal((await notCarried()) - before.notCarried, told, 'each that was not carried is counted once');
    assert.ok(sending.slowest < 5_000, `a publish took ${sending.slowest} ms`);
  }
});

test('a node that starts without Redis serves its own clients, says so, and joins when Redis comes', async () => {
  const redis = await Redis.start();
  const contracts = ['embedded:jobs-feed'];
  const first = await Node.start({ contracts, redis });
  await redis.kill();
  const second = await Node.start({ contracts, redis, ready: false });
  try {
    const ready = await second.get('/ready');
    assert.equal(ready.status, 503);
    assert.equal(ready.body.websocket.redis.connected, false);
    const client = await w.connect({ namespace }, second);
    await client.ask('subscribe:jobs');
    const answer = await second.publish('jobs-feed', 'job:update', { jobId: 'j', status: 's', data: 1 });
    assert.deepEqual([answer.local, answer.remote], [1, 'not_carried']);
    assert.equal((await client.next())[1].data, 1);

    await redis.up();
    for (const node of [first, second]) {
      await eventually('the node is ready', async () => (await node.get('/ready')).body.status === 'ready');
    }
    await first.publish('jobs-feed', 'job:update', { jobId: 'j', status: 's', data: 2 });
    assert.equal((await client.next())[1].data, 2);
  } finally {
    await first.stop();
    await second.stop();
    await redis.stop();
  }
});

test('redis.when_away = not_ready: no new clients while Redis is away, and those that are there stay', async () => {
  const redis = await Redis.start();
  const node = await Node.start({ contracts: ['embedded:jobs-feed'], redis, env: { ROOMCAST_REDIS__WHEN_AWAY: 'not_ready' } });
  try {
    const client = await w.connect({ namespace }, node);
    await redis.kill();
    await eventually('the node is not ready', async () => (await node.get('/ready')).status === 503);
    assert.equal((await node.get('/ready')).body.status, 'not_ready');
    assert.equal((await client.ask('subscribe:jobs')).success, true);
    await redis.up();
    await eventually('the node is ready', async () => (await node.get('/ready')).status === 200);
  } finally {
    await node.stop();
    await redis.stop();
  }
});
