// Contract 3: job updates with history in Redis. For the keys and the history see feed-history.test.js.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { like, text, timestamp } from '../harness/eventually.js';
import { token } from '../harness/token.js';
import { world } from '../harness/world.js';

const namespace = '/jobs';
const w = await world({ contracts: ['embedded:jobs-feed'] });
const publish = (event, data, params) => w.a.publish('jobs-feed', event, data, params);
const subscribed = (room) => ({ success: true, room, message: text });
let jobs = 0;
const newJob = () => `f${(jobs += 1)}`;

afterEach(() => w.clear());

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    const connect = () => w.connect({ namespace, transport });

    test('each of the four updates reaches the job, everybody, and the named user, filled in, once', async () => {
      const [onJob, onAll, onUser, onEverything, stranger] = await Promise.all([1, 2, 3, 4, 5].map(connect));
      const jobId = newJob();
      like(await onJob.ask('subscribe:jobs', { jobId }), subscribed(`job:${jobId}`));
      like(await onAll.ask('subscribe:jobs', {}), subscribed('all-jobs'));
      like(await onUser.ask('subscribe:jobs', { userId: 'u1' }), subscribed('user:u1'));
      for (const payload of [{ jobId }, {}, { userId: 'u1' }]) await onEverything.ask('subscribe:jobs', payload);
      await stranger.ask('subscribe:jobs', { jobId: 'another' });

      const params = { userId: 'u1' };
      await publish('job:update', { jobId, status: 'queued', data: { place: 3 } }, params);
      await publish('job:progress', { jobId, progress: 55, message: 'm' }, params);
      await publish('job:completed', { jobId, result: { url: 'u' } }, params);
      await publish('job:error', { jobId, error: 'e' }, params);

      const expected = [
        ['job:update', { jobId, status: 'queued', data: { place: 3 }, timestamp }],
        ['job:progress', { jobId, progress: 55, message: 'm', status: 'in_progress', timestamp }],
        ['job:completed', { jobId, result: { url: 'u' }, status: 'completed', timestamp }],
        ['job:error', { jobId, error: 'e', status: 'failed', timestamp }],
      ];
      for (const client of [onJob, onAll, onUser, onEverything]) like(await client.drain(w.a), expected);
      assert.deepEqual(await stranger.drain(w.a), []);
    });

    test('unsubscribing answers and ends it', async () => {
      const client = await connect();
      const jobId = newJob();
      for (const [payload, room] of [[{ jobId }, `job:${jobId}`], [{ userId: 'u2' }, 'user:u2'], [{}, 'all-jobs']]) {
        like(await client.ask('subscribe:jobs', payload), subscribed(room));
        like(await client.ask('unsubscribe:jobs', payload), subscribed(room));
      }
      await publish('job:update', { jobId, status: 's', data: 1 }, { userId: 'u2' });
      assert.deepEqual(await client.drain(w.a), []);
    });

    test('no payload at all means all jobs', async () => {
      const client = await connect();
      like(await client.ask('subscribe:jobs'), subscribed('all-jobs'));
      await publish('job:update', { jobId: 'any', status: 's', data: null });
      like(await client.drain(w.a), [['job:update', { jobId: 'any', status: 's', data: null, timestamp }]]);
    });
  });
}

test('what the backend did say is not overwritten', async () => {
  const client = await w.connect({ namespace });
  await client.ask('subscribe:jobs');
  const data = { jobId: 'j', progress: 1, status: 'paused', timestamp: '2020-01-01T00:00:00.000Z' };
  await publish('job:progress', data);
  assert.deepEqual(await client.drain(w.a), [['job:progress', data]]);
});

test('without a named user, the user room gets nothing', async () => {
  const client = await w.connect({ namespace });
  await client.ask('subscribe:jobs', { userId: 'u1' });
  await publish('job:update', { jobId: 'j', status: 's', data: 0, userId: 'u1' });
  assert.deepEqual(await client.drain(w.a), []);
});

test('the user may be one whom an identity provider named', async () => {
  for (const userId of ['auth0|1234', 'waad|B3PtG9rk', 'jane@example.com', 'urn:uuid:7d9f', 'CN=Jane Doe,OU=a']) {
    const client = await w.connect({ namespace });
    assert.equal((await client.ask('subscribe:jobs', { userId })).room, `user:${userId}`);
    await publish('job:update', { jobId: 'j', status: 's', timestamp: 't' }, { userId });
    assert.deepEqual(await client.drain(w.a), [['job:update', { jobId: 'j', status: 's', timestamp: 't' }]]);
  }
});

test('a payload of the wrong shape is refused in the ack', async () => {
  const client = await w.connect({ namespace });
  for (const payload of [7, 'j1', [], { jobId: 5 }, { userId: {} }]) {
    like(await client.ask('subscribe:jobs', payload), {
      success: false,
      error: { code: 'INVALID_PAYLOAD', message: text },
    });
  }
  like(await client.ask('subscribe:jobs', { jobId: '' }), {
    success: false,
    error: { code: 'INVALID_ROOM', message: text },
  });
});

describe('authentication is a choice', () => {
  test('a token makes a user, and none makes an anonymous one', async () => {
    const [named, anonymous] = [await w.connect({ namespace, user: 'u9' }), await w.connect({ namespace })];
    await w.a.emit({ namespace, users: ['u9'], event: 'hello', args: [1] });
    assert.deepEqual(await named.drain(w.a), [['hello', 1]]);
    assert.deepEqual(await anonymous.drain(w.a), []);
  });

  test('a bad token never becomes anonymous', async () => {
    const forged = token({ sub: 'u9' }, { secret: 'another-secret-that-is-long-enough-000' });
    await assert.rejects(w.connect({ namespace, token: forged }), /AUTHENTICATION_FAILED/);
  });
});

describe('for backends', () => {
  test('any event to all clients of the namespace', async () => {
    const [one, two] = [await w.connect({ namespace }, w.a), await w.connect({ namespace, user: 'u' }, w.b)];
    await w.a.emit({ namespace, event: 'maintenance', args: [{ at: 'noon' }, 2] });
    for (const client of [one, two]) assert.deepEqual(await client.drain(w.a), [['maintenance', { at: 'noon' }, 2]]);
  });

  test('any event to one user, on all of their sockets', async () => {
    const [one, two, other] = [
      await w.connect({ namespace, user: 'u3' }, w.a),
      await w.connect({ namespace, user: 'u3' }, w.b),
      await w.connect({ namespace, user: 'u4' }, w.b),
    ];
    await w.a.emit({ namespace, users: ['u3'], event: 'you', args: [] });
    assert.deepEqual(await one.drain(w.a), [['you']]);
    assert.deepEqual(await two.drain(w.a), [['you']]);
    assert.deepEqual(await other.drain(w.a), []);
  });

  test('any event to a room but for somebody', async () => {
    const [one, two] = [await w.connect({ namespace }), await w.connect({ namespace })];
    for (const client of [one, two]) await client.ask('subscribe:jobs');
    await w.a.emit({ namespace, rooms: ['all-jobs'], except: [two.id], event: 'x', args: ['y'] });
    assert.deepEqual(await one.drain(w.a), [['x', 'y']]);
    assert.deepEqual(await two.drain(w.a), []);
  });

  test('a name that is not in the contract, and data that is not in the schema', async () => {
    const post = (event, data) => w.a.api('POST', '/api/v1/events', { contract: 'jobs-feed', event, data });
    const cases = [
      ['job:nonsense', {}, 404, 'UNKNOWN_EVENT'],
      ['subscribe:jobs', {}, 404, 'UNKNOWN_EVENT'],
      ['job:update', { jobId: 'j' }, 422, 'INVALID_PAYLOAD'],
      ['job:progress', { jobId: 'j', progress: 101 }, 422, 'INVALID_PAYLOAD'],
      ['job:progress', { jobId: 'j', progress: '5' }, 422, 'INVALID_PAYLOAD'],
      ['job:completed', { result: 1 }, 422, 'INVALID_PAYLOAD'],
      ['job:error', { jobId: 1, error: 1 }, 422, 'INVALID_PAYLOAD'],
    ];
    for (const [event, data, status, code] of cases) {
      const reply = await post(event, data);
      assert.deepEqual([reply.status, reply.body.error.code], [status, code], `${event} ${JSON.stringify(data)}`);
    }
  });
});
