// Clients are recovered on another node: after their node was killed, after it was drained, and while Redis is away.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { freeze } from '../harness/process.js';
import { comeBack, cut, had, numbers, range, vanish } from '../harness/returning.js';
import { ENGINE, world } from '../harness/world.js';

const fixture = (name) => join(ROOT, `tests/js/fixtures/${name}.toml`);
const contracts = [fixture('back'), fixture('brief')];
const namespace = '/back';
const w = await world({ contracts, mode: 'cluster' });
const publish = (log, n, node = w.a, event = 'entry') => node.publish('back', event, { log, n });
const extra = async () => await Node.start({ contracts, redis: w.redis });

async function follower(log, node, options = {}) {
  const client = await w.connect({ namespace, user: 'alice', ...options }, node);
  assert.equal((await client.ask('follow', log)).success, true);
  return client;
}

if (ENGINE === 'native') {
  test('after SIGKILL under traffic every client is recovered on another node', async () => {
    const doomed = await extra();
    const people = await Promise.all(range(1, 20).map((n) => follower(n % 2 ? 'odd' : 'even', doomed, { user: `u${n}` })));
    const quiet = await follower('quiet', doomed);
    const ids = people.map(({ id }) => id);
    const sent = { odd: 0, even: 0 };
    let stop = false;
    const traffic = Object.keys(sent).map(async (log) => {
      while (!stop) {
        await publish(log, sent[log] + 1);
        sent[log] += 1;
      }
    });
    await Promise.all(people.map((client) => had(client, 20)));
    await doomed.stop('SIGKILL');
    await Promise.all(people.map((client) => client.ended()));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const recovered = await Promise.all(people.map((client, at) => comeBack(client, w.nodes[at % 2])));
    assert.deepEqual(recovered, people.map(() => true));
    assert.deepEqual(people.map(({ id }) => id), ids);
    assert.equal(await comeBack(quiet, w.b), true, 'one that has had no event at all');
    stop = true;
    await Promise.all(traffic);
    for (const [at, client] of people.entries()) {
      const goal = sent[(at + 1) % 2 ? 'odd' : 'even'];
      assert.deepEqual(await had(client, goal), range(1, goal));
    }
    w.clear();
  });

  test('what an emitter in another process sent while the client was away is recovered', async () => {
    const redis = createClient({ url: w.redis.url });
    await redis.connect();
    const emitter = new Emitter(redis).of(namespace);
    // The node that publishes emitters' events may have been killed. Another node replaces it within seconds.
    const probe = await follower('probed', w.b, { user: 'carol' });
    await eventually('somebody publishes for emitters', () => {
      emitter.to('log:probed').emit('entry', { n: 0 });
      return probe.inbox.length > 0;
    });
    const client = await follower('emitted', w.a);
    const { id } = client;
    await publish('emitted', 1);
    await had(client, 1);
    await cut(client);
    emitter.to('log:emitted').emit('entry', { n: 2 });
    emitter.to(id).emit('entry', { n: 3 });
    emitter.emit('entry', { n: 4 });
    emitter.to('log:emitted').except(id).emit('entry', { n: 'for others' });
    // One node writes the emitter's events into the histories.
    const other = await follower('emitted', w.b, { user: 'bob' });
    emitter.to(other.id).emit('entry', { n: 5 });
    await eventually('the last of them has come', () => numbers(other.inbox).includes(5));
    await redis.disconnect();
    assert.equal(await comeBack(client, w.b), true);
    await publish('emitted', 6);
    assert.deepEqual((await had(client, 5)).toSorted(), [1, 2, 3, 4, 6]);
    w.clear();
  });

  test('a node that leaves hands its sessions over', async () => {
    const leaving = await extra();
    const client = await follower('drained', leaving);
    const { id } = client;
    await publish('drained', 1);
    await had(client, 1);
    const stopped = leaving.stop();
    await client.ended();
    await publish('drained', 2);
    assert.equal(await comeBack(client, w.b), true);
    assert.equal(client.id, id);
    assert.deepEqual(await had(client, 2), [1, 2]);
    await stopped;
  });

  test('a node that has been dead for longer than the window gives nobody back', async () => {
    const doomed = await extra();
    const client = await w.connect({ namespace: '/brief', user: 'alice' }, doomed);
    await client.ask('follow', 'l');
    await doomed.stop('SIGKILL');
    await client.ended();
    // The test deletes the liveness keys, because they last as long as the longest recovery window, which the other
    // contract has.
    await w.redis.call('DEL', ...(await w.redis.keys('roomcast:recovery:v1:node:*')));
    await eventually('the living say so again', async () => (await w.redis.keys('roomcast:recovery:v1:node:*')).length === 2);
    assert.equal(await comeBack(client, w.b), false);
    assert.equal(await w.b.metric('roomcast_recoveries_total', { result: 'expired' }), 1);
  });

  test('an old connection that is found dead later ends nobody but itself', async () => {
    const client = await follower('moved', w.a);
    const { id } = client;
    const end = await vanish(client);
    assert.equal(await comeBack(client, w.b), true);
    end();
    const rooms = async () => (await w.b.api('GET', `/api/v1/connections?namespace=${encodeURIComponent(namespace)}`)).body.items;
    await eventually('one is left', async () => (await rooms()).filter((item) => JSON.stringify(item).includes(id)).length === 1);
    await publish('moved', 1);
    assert.deepEqual(await had(client, 1), [1]);
    await cut(client);
    await publish('moved', 2);
    assert.equal(await comeBack(client, w.a), true);
    assert.deepEqual(await had(client, 2), [1, 2]);
  });

  test('while Redis is away nobody is recovered, and nobody is kept out', async () => {
    const client = await follower('away', w.a);
    const [late, stays] = [await follower('away', w.a, { user: 'bob' }), await follower('away', w.a, { user: 'carol' })];
    await publish('away', 1);
    for (const one of [client, late, stays]) await had(one, 1);
    await Promise.all([cut(client), cut(late)]);
    const pause = await w.redis.call('CONFIG', 'SET', 'appendonly', 'no');
    assert.equal(pause, 'OK');
    // Redis is suspended and not killed, so that it later continues with all its data.
    await freeze(w.redis.process);
    await eventually('the node says that Redis is away', async () => {
      const { body } = await w.a.get('/ready');
      return JSON.stringify(body).includes('"connected":false') || (await publishes()) !== 'carried';
    }, 20_000);
    async function publishes() {
      return (await publish('away', 2)).remote;
    }
    assert.equal(await comeBack(client, w.a), false);
    assert.equal((await client.ask('follow', 'away')).success, true);
    await publish('away', 3);
    await eventually('it is there', () => numbers(client.inbox).includes(3));
    w.redis.process.child.kill('SIGCONT');
    for (const node of w.nodes) {
      await eventually('the node is ready again', async () => (await node.get('/ready')).status === 200, 20_000);
    }
    await eventually('everybody knows that events went live that no history has', async () => {
      return (await w.redis.keys('roomcast:recovery:v1:unrecorded:*')).length === 1;
    });
    assert.equal(await comeBack(late, w.b), false);
    assert.ok(!numbers(late.inbox).includes(3));
    assert.equal(stays.disconnected, undefined);
  });
}

test('nodes of any engine take a client that asks for a session of another', async () => {
  const client = await follower('other', w.a);
  await cut(client);
  client.socket._pid ??= 'x'.repeat(43);
  const other = await Node.start({ contracts, redis: w.redis, env: { ROOMCAST_SERVER__ENGINE: 'socketioxide' } });
  try {
    assert.ok(!(await comeBack(client, other)));
    assert.equal((await client.ask('follow', 'other')).success, true);
  } finally {
    client.close();
    await other.stop();
  }
});
