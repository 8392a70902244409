// Contract 4: dashboards, queues and commissions.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS, strangeAddress } from '../harness/client.js';
import { like, text, timestamp } from '../harness/eventually.js';
import { seconds, token } from '../harness/token.js';
import { world } from '../harness/world.js';

const namespace = '/realtime';
const w = await world({ contracts: ['embedded:vendhub-realtime'] });
const publish = (event, data) => w.a.publish('vendhub-realtime', event, data);

// The limit is ten connections per minute from one address, so each client has an address of its own.
const open = (options) => w.open({ namespace, address: strangeAddress(), ...options });
async function connect(options) {
  const client = await w.connect({ namespace, address: strangeAddress(), ...options });
  const [event, greeting] = await client.next();
  assert.equal(event, 'connection:success');
  client.greeting = greeting;
  return client;
}
const joined = (room) => ({ success: true, room });
const denied = { success: false, error: { code: 'AUTHORIZATION_FAILED', message: text } };

afterEach(() => w.clear());

const calculated = { id: 'c1', contractId: 'k1', commissionAmount: 12.5, totalRevenue: 125, period: '2026-01' };
const updated = { id: 'c1', contractId: 'k1', status: 'paid' };
const metrics = { totalRevenue: 1, totalCommissions: 2, pendingPayments: 3, overduePayments: 4, activeContracts: 5 };
const progress = { jobId: 'q1', type: 'import', progress: 50, message: 'm' };
const completed = { jobId: 'q1', type: 'import', result: { rows: 3 } };
const failed = { jobId: 'q1', type: 'import', error: 'e' };
const stats = { waiting: 1, active: 2 };

async function publishAll() {
  await publish('commission:calculated', calculated);
  await publish('commission:updated', updated);
  await publish('queue:job-progress', progress);
  await publish('queue:job-completed', completed);
  await publish('queue:job-failed', failed);
  await publish('queue:stats', stats);
  await publish('dashboard:metrics', metrics);
}
const commissions = [
  ['commission:calculated', calculated],
  ['commission:updated', updated],
];
const queue = [
  ['queue:job-progress', progress],
  ['queue:job-completed', completed],
  ['queue:job-failed', failed],
  ['queue:stats', stats],
];

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    test('each room gets its events, and a client in several gets one copy', async () => {
      const [onDashboard, onQueue, onContract, onAll, nowhere] = await Promise.all(
        ['a', 'b', 'c', 'd', 'e'].map((user) => connect({ user, transport })),
      );
      assert.deepEqual(await onDashboard.ask('subscribe:dashboard'), joined('dashboard'));
      assert.deepEqual(await onQueue.ask('subscribe:queue'), joined('queue'));
      assert.deepEqual(await onContract.ask('subscribe:contract', { contractId: 'k1' }), joined('contract:k1'));
      for (const event of [['subscribe:dashboard'], ['subscribe:queue'], ['subscribe:contract', 'k1']]) {
        assert.equal((await onAll.ask(...event)).success, true);
      }
      await nowhere.ask('subscribe:contract', 'k2');

      await publishAll();
      like(await onDashboard.drain(w.a), [...commissions, ['dashboard:metrics', { ...metrics, timestamp }]]);
      assert.deepEqual(await onQueue.drain(w.a), queue);
      assert.deepEqual(await onContract.drain(w.a), commissions);
      like(await onAll.drain(w.a), [...commissions, ...queue, ['dashboard:metrics', { ...metrics, timestamp }]]);
      assert.deepEqual(await nowhere.drain(w.a), []);
    });

    test('unsubscribing ends each', async () => {
      const client = await connect({ user: 'a', transport });
      for (const [what, room, ...args] of [
        ['dashboard', 'dashboard'],
        ['queue', 'queue'],
        ['contract', 'contract:k1', { contractId: 'k1' }],
        ['contract', 'contract:k1', 'k1'],
        ['contract', 'contract:42', 42],
      ]) {
        assert.deepEqual(await client.ask(`subscribe:${what}`, ...args), joined(room));
        assert.deepEqual(await client.ask(`unsubscribe:${what}`, ...args), joined(room));
      }
      await publishAll();
      assert.deepEqual(await client.drain(w.a), []);
    });

    test('an anonymous user may watch the queue and nothing else', async () => {
      const client = await connect({ transport });
      assert.equal(client.greeting.authenticated, false);
      assert.deepEqual(await client.ask('subscribe:queue'), joined('queue'));
      like(await client.ask('subscribe:dashboard'), denied);
      like(await client.ask('subscribe:contract', 'k1'), denied);
      like(await client.ask('subscribe:contract', { contractId: 'k1' }), denied);
      await publishAll();
      assert.deepEqual(await client.drain(w.a), queue);
    });

    test('a bad token gets an error, is disconnected, and never was anonymous', async () => {
      const client = open({ transport, token: token({ sub: 'a' }, { secret: 'another-secret-that-is-long-enough-000' }) });
      assert.equal(await client.ended(), 'io server disconnect');
      like(client.inbox, [['error', { code: 'AUTHENTICATION_FAILED', message: text }]]);
    });
  });
}

test('an error without an ack is an event', async () => {
  const client = await connect({});
  client.send('subscribe:dashboard');
  like(await client.next(), ['error', { code: 'AUTHORIZATION_FAILED', message: text }]);
  client.send('subscribe:contract', {});
  like(await client.next(), ['error', { code: 'INVALID_PAYLOAD', message: text }]);
  client.send('dashboard:metrics', {});
  like(await client.next(), ['error', { code: 'UNKNOWN_EVENT', message: text }]);
  assert.deepEqual(await client.drain(w.b), []);
});

describe('where a token is looked for', () => {
  const good = (user) => token({ sub: user });
  const bad = token({ sub: 'x', exp: seconds(-3600) });
  const header = (value) => ({ extraHeaders: { authorization: `Bearer ${value}` } });

  test('in the handshake, then in the header, then in the query', async () => {
    for (const [options, user] of [
      [{ token: good('a') }, 'a'],
      [header(good('h')), 'h'],
      [{ query: { token: good('q') } }, 'q'],
      [{ token: good('a'), ...header(good('h')), query: { token: good('q') } }, 'a'],
      [{ ...header(good('h')), query: { token: good('q') } }, 'h'],
      [{ token: good('a'), query: { token: bad } }, 'a'],
    ]) {
      const client = await connect(options);
      assert.equal(client.greeting.authenticated, true);
      await w.a.emit({ namespace, users: [user], event: 'who', args: [user] });
      assert.deepEqual(await client.drain(w.a), [['who', user]]);
    }
  });

  test('the first that is found counts, even if it is bad', async () => {
    for (const options of [
      { token: bad, ...header(good('h')) },
      { ...header(bad), query: { token: good('q') } },
      { query: { token: bad } },
    ]) {
      const client = open(options);
      assert.equal(await client.ended(), 'io server disconnect');
      like(client.inbox, [['error', { code: 'AUTHENTICATION_FAILED', message: text }]]);
    }
  });
});

test('the eleventh connection of an address in a minute gets an error and is disconnected', async () => {
  const address = strangeAddress();
  for (let count = 0; count < 10; count += 1) {
    const client = await connect({ address });
    client.close();
  }
  const eleventh = open({ address });
  assert.equal(await eleventh.ended(), 'io server disconnect');
  like(eleventh.inbox, [['error', { code: 'RATE_LIMIT_EXCEEDED', message: text }]]);
  assert.equal((await connect({ address: strangeAddress() })).greeting.authenticated, false);
  assert.ok((await w.b.metric('roomcast_connections_refused_total', { nsp: namespace, code: 'RATE_LIMIT_EXCEEDED' })) >= 1);
});

describe('what a backend may not publish', () => {
  const wrong = [
    ['commission:calculated', { ...calculated, period: undefined }],
    ['commission:updated', { id: 'c1' }],
    ['queue:job-progress', { ...progress, progress: 100.5 }],
    ['queue:job-completed', { jobId: 'q1' }],
    ['queue:job-failed', { type: 't' }],
    ['queue:stats', [1]],
    ['dashboard:metrics', { ...metrics, activeContracts: undefined }],
  ];
  for (const [event, data] of wrong) {
    test(event, async () => {
      const { status, body } = await w.a.api('POST', '/api/v1/events', { contract: 'vendhub-realtime', event, data });
      assert.deepEqual([status, body.error?.code], [422, 'INVALID_PAYLOAD']);
    });
  }
});
