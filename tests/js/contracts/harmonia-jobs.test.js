// Contract 1: job status for a song-making application.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { eventually, like, text } from '../harness/eventually.js';
import { capability, seconds, token } from '../harness/token.js';
import { world } from '../harness/world.js';

const w = await world({ contracts: ['embedded:harmonia-jobs'] });
const publish = (event, data, params) => w.a.publish('harmonia-jobs', event, data, params);
const denied = { success: false, error: { code: 'AUTHORIZATION_FAILED', message: text } };
let jobs = 0;

/** Records the user as the owner of a new job, as the backend does. Returns the job's id. */
async function jobOf(owner) {
  jobs += 1;
  const id = `j${jobs}`;
  await w.a.own('/', `job:${id}`, owner);
  return id;
}

/** The events that each of these clients has received until now. */
async function got(...clients) {
  return await Promise.all(clients.map((client) => client.drain(w.a)));
}

afterEach(() => w.clear());

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    const connect = (user, claims) => w.connect({ user, claims, transport });

    test('a subscriber of a job gets its status, its progress and its end, and a stranger none of it', async () => {
      const [alice, bob] = await Promise.all([connect('alice'), connect('bob')]);
      const id = await jobOf('alice');
      assert.deepEqual(await alice.ask('job:subscribe', { jobId: id }), { success: true, room: `job:${id}` });

      const progress = { current: 2, total: 4, percentage: 50, message: 'half way' };
      await publish('job:status', { id, status: 'processing' });
      await publish('job:progress', { id, progress });
      await publish('job:completed', { job: { id, userId: 'alice', title: 'Ode', parts: [1, 2] } });
      await publish('job:failed', { id, error: 'too late' });

      const [toAlice, toBob] = await got(alice, bob);
      assert.deepEqual(toAlice, [
        ['job:status', { id, status: 'processing' }],
        ['job:progress', { id, progress }],
        ['job:completed', { job: { id, userId: 'alice', title: 'Ode', parts: [1, 2] } }],
        ['job:failed', { id, error: 'too late' }],
      ]);
      assert.deepEqual(toBob, []);
    });

    test('a subscriber of their own jobs gets what names them, and not the progress', async () => {
      const [alice, bob] = await Promise.all([connect('alice'), connect('bob')]);
      const id = await jobOf('alice');
      assert.deepEqual(await alice.ask('jobs:subscribe:user'), { success: true, room: 'user:alice:jobs' });
      assert.deepEqual(await bob.ask('jobs:subscribe:user'), { success: true, room: 'user:bob:jobs' });

      await publish('job:status', { id, status: 'queued' }, { userId: 'alice' });
      await publish('job:status', { id, status: 'not for a user' });
      await publish('job:progress', { id, progress: { current: 0, total: 1, percentage: 0, message: '' } });
      await publish('job:completed', { job: { id, userId: 'alice' } });
      await publish('job:failed', { id, error: 'broken' }, { userId: 'alice' });

      const [toAlice, toBob] = await got(alice, bob);
      assert.deepEqual(toAlice, [
        ['job:status', { id, status: 'queued' }],
        ['job:completed', { job: { id, userId: 'alice' } }],
        ['job:failed', { id, error: 'broken' }],
      ]);
      assert.deepEqual(toBob, []);
    });

    test('a client in both rooms gets one copy', async () => {
      const alice = await connect('alice');
      const id = await jobOf('alice');
      await alice.ask('job:subscribe', { jobId: id });
      await alice.ask('jobs:subscribe:user');
      await publish('job:status', { id, status: 'queued' }, { userId: 'alice' });
      await publish('job:completed', { job: { id, userId: 'alice' } });
      await publish('job:failed', { id, error: { code: 7 } }, { userId: 'alice' });
      assert.deepEqual(await alice.drain(w.a), [
        ['job:status', { id, status: 'queued' }],
        ['job:completed', { job: { id, userId: 'alice' } }],
        ['job:failed', { id, error: { code: 7 } }],
      ]);
    });

    test('unsubscribing ends it, for the job and for the user', async () => {
      const alice = await connect('alice');
      const id = await jobOf('alice');
      await alice.ask('job:subscribe', { jobId: id });
      await alice.ask('jobs:subscribe:user');
      assert.deepEqual(await alice.ask('job:unsubscribe', { jobId: id }), { success: true, room: `job:${id}` });
      await publish('job:status', { id, status: 'one' });
      await publish('job:status', { id, status: 'two' }, { userId: 'alice' });
      // The event may still be in flight from the other node. It must arrive before the client leaves the room.
      await eventually('it arrives', () => alice.inbox.length === 1);
      assert.deepEqual(await alice.ask('jobs:unsubscribe:user'), { success: true, room: 'user:alice:jobs' });
      await publish('job:status', { id, status: 'three' }, { userId: 'alice' });
      assert.deepEqual(await alice.drain(w.a), [['job:status', { id, status: 'two' }]]);
    });

    test("somebody else's job is refused, with a structured error, and nothing is delivered", async () => {
      const bob = await connect('bob');
      const id = await jobOf('alice');
      like(await bob.ask('job:subscribe', { jobId: id }), denied);
      await publish('job:status', { id, status: 'secret' });
      assert.deepEqual(await bob.drain(w.a), []);
    });

    test('an administrator gets everything without asking, and may see any job', async () => {
      const [admin, user] = await Promise.all([connect('root', { roles: ['admin'] }), connect('alice')]);
      const id = await jobOf('somebody');
      // The node answers a client's first event only when events of all nodes reach the client's rooms.
      await admin.ask('job:unsubscribe', { jobId: id });
      await publish('job:status', { id, status: 'queued' }, { userId: 'somebody' });
      await publish('job:progress', { id, progress: { current: 1, total: 2, percentage: 50, message: 'm' } });
      await publish('job:completed', { job: { id, userId: 'somebody' } });
      await publish('job:failed', { id, error: 'e' }, { userId: 'somebody' });
      const [toAdmin, toUser] = await got(admin, user);
      assert.deepEqual(toAdmin, [
        ['job:status', { id, status: 'queued' }],
        ['job:progress', { id, progress: { current: 1, total: 2, percentage: 50, message: 'm' } }],
        ['job:completed', { job: { id, userId: 'somebody' } }],
        ['job:failed', { id, error: 'e' }],
      ]);
      assert.deepEqual(toUser, []);
      assert.equal((await admin.ask('job:subscribe', { jobId: id })).success, true);
      await publish('job:status', { id, status: 'once' });
      assert.deepEqual(await admin.drain(w.a), [['job:status', { id, status: 'once' }]]);
    });
  });
}

describe('who may connect', () => {
  const bad = {
    'no token': {},
    'an empty token': { auth: { token: '' } },
    'a token that is no token': { token: 'abc' },
    'a token of another key': { token: token({ sub: 'alice' }, { secret: 'another-secret-that-is-long-enough-000' }) },
    'an expired token': { token: token({ sub: 'alice', exp: seconds(-3600) }) },
    'a token of the future': { token: token({ sub: 'alice', nbf: seconds(3600) }) },
    'an unsigned token': { token: token({ sub: 'alice' }, { algorithm: 'none' }) },
    'a token of another algorithm': { token: token({ sub: 'alice' }, { algorithm: 'HS512' }) },
    'a token without a user': { token: token({}) },
    'a token whose user is not a string': { token: token({ sub: { id: 'alice' } }) },
    'a capability instead of a token': { token: capability('job:1', { sub: 'alice' }) },
  };
  for (const [what, options] of Object.entries(bad)) {
    test(`${what} is refused`, async () => {
      await assert.rejects(w.connect(options), /^Error: AUTHENTICATION_FAILED: ./);
    });
  }

  test('a token in the Authorization header is as good', async () => {
    const alice = await w.connect({ extraHeaders: { authorization: `Bearer ${token({ sub: 'alice' })}` } });
    assert.deepEqual(await alice.ask('jobs:subscribe:user'), { success: true, room: 'user:alice:jobs' });
  });
});

describe('ownership', () => {
  test('1: the room holds the caller, whatever the payload says', async () => {
    const bob = await w.connect({ user: 'bob' });
    assert.deepEqual(await bob.ask('jobs:subscribe:user', { userId: 'alice' }), {
      success: true,
      room: 'user:bob:jobs',
    });
    await publish('job:completed', { job: { id: 'x', userId: 'alice' } });
    assert.deepEqual(await bob.drain(w.a), []);
  });

  test('2: a claim lists rooms and patterns', async () => {
    const alice = await w.connect({ user: 'alice', claims: { rooms: ['job:named', 'job:team-*'] } });
    assert.equal((await alice.ask('job:subscribe', { jobId: 'named' })).success, true);
    assert.equal((await alice.ask('job:subscribe', { jobId: 'team-7' })).success, true);
    for (const jobId of ['team', 'named2', 'other', 'xteam-7']) {
      like(await alice.ask('job:subscribe', { jobId }), denied, jobId);
    }
  });

  test('3: a capability opens one room', async () => {
    const alice = await w.connect({ user: 'alice' });
    const ask = (jobId, capability) => alice.ask('job:subscribe', { jobId, capability });
    assert.deepEqual(await ask('c1', capability('job:c1')), { success: true, room: 'job:c1' });
    assert.equal((await ask('c2', capability('job:c2', { sub: 'alice' }))).success, true);
    like(await ask('c3', capability('job:c1')), denied, 'of another room');
    like(await ask('c3', capability('job:*')), denied, 'a pattern is a name like any other');
    like(await ask('c3', capability('job:c3', { sub: 'bob' })), denied, 'of another user');
    like(await ask('c3', capability('job:c3', { exp: seconds(-3600) })), denied, 'expired');
    like(await ask('c3', capability('job:c3', { exp: undefined })), denied, 'without an end');
    like(await ask('c3', capability('job:c3', { use: undefined })), denied, 'not a capability');
    like(await ask('c3', capability('job:c3', {}, { secret: 'another-secret-that-is-long-enough-000' })), denied);
    like(await ask('c3', token({ sub: 'alice' })), denied, 'an access token');
    like(await ask('c3', 17), denied, 'not a string');
  });

  test('4: an owner that the backend recorded, on whichever node', async () => {
    const [alice, bob] = await Promise.all([w.connect({ user: 'alice' }), w.connect({ user: 'bob' })]);
    await w.a.own('/', 'job:o1', 'alice');
    assert.equal((await alice.ask('job:subscribe', { jobId: 'o1' })).success, true);
    like(await bob.ask('job:subscribe', { jobId: 'o1' }), denied);
    like(await alice.ask('job:subscribe', { jobId: 'nobody-s' }), denied, 'a job without an owner');
  });

  test('4: a record that is gone counts no more', async () => {
    const alice = await w.connect({ user: 'alice' });
    await w.a.own('/', 'job:o2', 'alice');
    const { status } = await w.a.api('DELETE', '/api/v1/owners', { namespace: '/', room: 'job:o2' });
    assert.ok(status >= 200 && status < 300, String(status));
    like(await alice.ask('job:subscribe', { jobId: 'o2' }), denied);
  });
});

test('a user whom an identity provider named gets what concerns their jobs', async () => {
  for (const user of ['auth0|1234', 'google-oauth2|103547991597142817347', 'jane@example.com', 'urn:uuid:7d9f', 'CN=Jane Doe,OU=a']) {
    const jane = await w.connect({ user });
    const id = await jobOf(user);
    assert.deepEqual(await jane.ask('jobs:subscribe:user'), { success: true, room: `user:${user}:jobs` });
    const { rooms } = await publish('job:status', { id, status: 'queued' }, { userId: user });
    assert.ok(rooms.includes(`user:${user}:jobs`), rooms);
    await publish('job:completed', { job: { id, userId: user } });
    assert.deepEqual(await jane.drain(w.a), [
      ['job:status', { id, status: 'queued' }],
      ['job:completed', { job: { id, userId: user } }],
    ]);
  }
});

describe('what a client may not send', () => {
  const cases = [
    ['job:subscribe', [], 'INVALID_PAYLOAD'],
    ['job:subscribe', [{}], 'INVALID_PAYLOAD'],
    ['job:subscribe', [{ jobId: 7 }], 'INVALID_PAYLOAD'],
    ['job:subscribe', [{ jobId: '' }], 'INVALID_PAYLOAD'],
    ['job:subscribe', [{ jobId: null }], 'INVALID_PAYLOAD'],
    ['job:subscribe', ['j1'], 'INVALID_PAYLOAD'],
    ['job:subscribe', [[1]], 'INVALID_PAYLOAD'],
    ['job:subscribe', [{ jobId: 'a b' }], 'INVALID_ROOM'],
    ['job:subscribe', [{ jobId: 'a\nb' }], 'INVALID_ROOM'],
    ['job:subscribe', [{ jobId: 'x'.repeat(5000) }], 'INVALID_ROOM'],
    ['job:unsubscribe', [{}], 'INVALID_PAYLOAD'],
    ['job:status', [{ id: 'j1', status: 'forged' }], 'UNKNOWN_EVENT'],
    ['job:nonsense', [], 'UNKNOWN_EVENT'],
  ];
  for (const [event, args, code] of cases) {
    test(`${event} ${JSON.stringify(args).slice(0, 40)}: ${code}`, async () => {
      const admin = await w.connect({ user: 'root', claims: { roles: 'admin' } });
      like(await admin.ask(event, ...args), { success: false, error: { code, message: text } });
      assert.deepEqual(await admin.drain(w.b), []);
      assert.ok(admin.socket.connected);
    });
  }

  test('without an ack, a good event works and a bad one is only counted', async () => {
    const alice = await w.connect({ user: 'alice' });
    const id = await jobOf('alice');
    const refused = { contract: 'harmonia-jobs', event: 'job:subscribe', result: 'INVALID_PAYLOAD' };
    const before = await w.b.metric('roomcast_events_received_total', refused);
    alice.send('job:subscribe', {});
    alice.send('job:subscribe', { jobId: id });
    await alice.ask('jobs:unsubscribe:user');
    await publish('job:status', { id, status: 'heard' });
    assert.deepEqual(await alice.drain(w.a), [['job:status', { id, status: 'heard' }]]);
    assert.equal((await w.b.metric('roomcast_events_received_total', refused)) - before, 1);
  });
});
