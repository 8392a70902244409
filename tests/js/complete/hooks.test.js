// Hooks: the requests to the backend, the effects of its answers, and its failures.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { TRANSPORTS } from '../harness/client.js';
import { eventually, like, text, timestamp } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/hooked';
const LIMITS = 'timeout = "3s"\nconcurrency = 4\nqueue = 8\nretries = 2\nbreaker = { failures = 5, open = "1s" }\n';
const backend = await Backend.start();
const contracts = ['hooked.toml', 'hooked-order.toml'].map((file) => join(ROOT, 'tests/js/fixtures', file));
const w = await world({ contracts, toml: backend.toml('backend', LIMITS) });
after(() => backend.stop());

const agree = () => ({ ok: true });
const failure = (code) => ({ success: false, error: { code, message: text } });
/** Answers by the type of the call. All other calls get a success. */
const on = (type, answer) => (event) => (event.type === `io.roomcast.${type}` ? answer(event) : agree());
const connect = (options = {}, node = w.b) => w.connect({ namespace, user: 'alice', ...options }, node);

afterEach(async () => {
  backend.answer = agree;
  w.clear();
  assert.deepEqual(backend.faults, [], 'every request was signed, fresh, and a CloudEvent with its trace');
  // A circuit breaker that a test has opened closes again with the first success.
  await eventually('the backend is asked again', async () => {
    const client = await connect().catch(() => undefined);
    const ok = client && (await client.ask('do', {})).success;
    client?.close();
    return ok;
  });
  backend.requests.length = 0;
});

for (const transport of Object.keys(TRANSPORTS)) {
  test(`over ${transport}: connecting asks, with the user and the socket; a no is a connect_error`, async () => {
    const alice = await connect({ transport, claims: { roles: ['r'] } });
    const [{ data, source, subject }] = backend.of('connect');
    assert.ok(source && subject);
    like(
      [data.contract, data.namespace, data.user.id, data.user.roles, data.socket.id],
      ['hooked', namespace, 'alice', ['r'], alice.id],
    );
    backend.answer = on('connect', () => ({ ok: false, error: { code: 'BANNED', message: 'go away' } }));
    await assert.rejects(connect({ transport }), /go away|BANNED/);
    backend.answer = on('connect', () => ({ status: 500, body: {} }));
    await assert.rejects(connect({ transport }));
  });

  test(`over ${transport}: an event's answer acknowledges, replies, joins, leaves, publishes and sets data`, async () => {
    const alice = await connect({ transport });
    const bob = await connect({ user: 'bob', transport }, w.a);
    backend.answer = on('event', ({ data }) =>
      data.user.id === 'bob'
        ? { ok: true, join: ['open:1'] }
        : {
            ok: true,
            ack: { answer: [1, 'two'] },
            reply: [{ event: 'private', data: { for: 'alice' } }, { event: 'bare' }],
            join: ['open:1'],
            publish: [{ event: 'done', data: { room: '1', by: 'alice' } }],
            metadata: { seen: true },
          },
    );
    await bob.ask('do', {});
    assert.deepEqual(await alice.ask('do', { thing: 7 }), { answer: [1, 'two'] });
    const { data } = backend.of('event').at(-1);
    like([data.event, data.payload, data.user.id, data.socket.id], ['do', { thing: 7 }, 'alice', alice.id]);
    assert.deepEqual(await bob.drain(w.b), [['done', { room: '1', by: 'alice' }]]);
    const names = (await alice.drain(w.b)).map(([event]) => event).sort();
    assert.deepEqual(names, ['bare', 'done', 'private']);

    backend.answer = on('event', () => ({ ok: true, leave: ['open:1'] }));
    assert.equal((await alice.ask('do', {})).success, true);
    await w.a.publish('hooked', 'done', { room: '1' });
    assert.deepEqual(await alice.drain(w.a), []);
    assert.deepEqual(await bob.drain(w.a), [['done', { room: '1' }]]);
  });
}

describe("an event that does everything", () => {
  test("does the contract's steps and the answers of its hooks in the documented order", async () => {
    const alice = await connect({ namespace: '/ordered' });
    await alice.ask('enter', { room: '1' });
    backend.answer = ({ type, data }) => {
      const publish = [{ event: 'published', data: { room: '1', by: type } }];
      const reply = [{ event: 'answered', data: type }];
      if (type === 'io.roomcast.join') return { ok: true, reply, publish, metadata: { by: 'join' } };
      return data.event === 'all' ? { ok: true, reply, publish, join: ['plain:2'], metadata: { by: 'event' } } : agree();
    };
    const second = { x: [1] };
    const ack = await alice.ask('all', { room: '1', me: { by: 'payload', name: 'ann' } }, 'second', second);
    assert.deepEqual(ack, { success: true, room: 'open:1', rooms: ['open:1', 'plain:1'] });
    assert.deepEqual(alice.inbox, [
      ['answered', 'io.roomcast.join'],
      ['relayed', { room: 'open:1' }],
      ['followed', { room: '1' }],
      ['answered', 'io.roomcast.event'],
      ['published', { room: '1', by: 'io.roomcast.event' }],
      ['replied'],
      ['agreed', { room: '1' }],
    ]);
    const [{ data }] = backend.of('event');
    assert.deepEqual(data.args, [{ room: '1', me: { by: 'payload', name: 'ann' } }, 'second', second]);
    await alice.ask('all', { room: '1' });
    const { socket } = backend.of('event').at(-1).data;
    assert.deepEqual([socket.rooms, socket.metadata], [['open:1', 'plain:2'], { by: 'event', name: 'ann' }]);
  });

  test('a hook joins only rooms that are declared, and whose rule permits it, where the contract says so', async () => {
    const alice = await connect({ namespace: '/ordered' });
    const rooms = ['mine:alice', 'mine:bob', 'undeclared', 'plain:3', '$user:bob'];
    backend.answer = on('event', () => ({ ok: true, join: rooms }));
    assert.equal((await alice.ask('all', { room: '1' })).success, true);
    await alice.ask('all', { room: '1' });
    assert.deepEqual(backend.of('event').at(-1).data.socket.rooms, ['mine:alice', 'open:1', 'plain:3']);
    backend.answer = on('connect', () => ({ ok: true, join: rooms }));
    const bob = await connect({ namespace: '/ordered', user: 'bob' });
    await bob.ask('all', { room: '1' });
    assert.deepEqual(backend.of('event').at(-1).data.socket.rooms, ['mine:bob', 'plain:3']);
  });

  test('a hook joins any room where the contract does not say otherwise', async () => {
    const alice = await connect();
    backend.answer = on('event', () => ({ ok: true, join: ['undeclared', '$user:bob'] }));
    await alice.ask('do', {});
    await alice.ask('do', {});
    assert.deepEqual(backend.of('event').at(-1).data.socket.rooms, ['undeclared']);
  });
});

describe('refusals', () => {
  test('an event is refused with the code and the message of the backend', async () => {
    const alice = await connect();
    backend.answer = on('event', () => ({ ok: false, error: { code: 'TOO_LATE', message: 'it is over' } }));
    assert.deepEqual(await alice.ask('do', {}), { success: false, error: { code: 'TOO_LATE', message: 'it is over' } });
    alice.send('do', {});
    assert.deepEqual(await alice.next(), ['failed', { code: 'TOO_LATE', message: 'it is over' }]);
  });

  test('a backend that fails tells nothing of itself to clients', async () => {
    const alice = await connect();
    backend.answer = on('event', () => ({ status: 500, body: { secret: 'stack trace' } }));
    const ack = await alice.ask('do', {});
    like(ack, failure('CALL_FAILED'));
    assert.doesNotMatch(JSON.stringify(ack), /stack trace|127\.0\.0\.1|hooks/);
  });
});

describe('ownership rule 5: the backend says who may join', () => {
  test('its yes is remembered for as long as it says, and a no is a no', async () => {
    const alice = await connect();
    backend.answer = on('join', ({ data }) => (data.room === 'guarded:mine' ? { ok: true, ttl: 60 } : { ok: false }));
    assert.deepEqual(await alice.ask('enter', 'mine'), { success: true, room: 'guarded:mine' });
    like(await alice.ask('enter', 'yours'), failure('AUTHORIZATION_FAILED'));
    const asked = () => backend.of('join').filter(({ data }) => data.room === 'guarded:mine').length;
    assert.equal(asked(), 1);
    await alice.ask('quit', 'mine');
    assert.equal((await alice.ask('enter', 'mine')).success, true);
    assert.equal((await (await connect()).ask('enter', 'mine')).success, true, 'on another socket of the user');
    assert.equal(asked(), 1, 'it was remembered');
    assert.equal((await (await connect({ user: 'bob' })).ask('enter', 'mine')).success, true);
    assert.equal(asked(), 2, 'another user is another question');
  });

  test('without a time it is asked again', async () => {
    const alice = await connect();
    for (const _ of [1, 2]) {
      assert.equal((await alice.ask('enter', 'often')).success, true);
      await alice.ask('quit', 'often');
    }
    assert.equal(backend.of('join').length, 2);
  });
});

describe('a slow backend', () => {
  test("keeps the order of a socket's events, and does not hold others up", async () => {
    const [alice, bob] = [await connect(), await connect({ user: 'bob' })];
    let release;
    backend.answer = on('event', () => new Promise((resolve) => (release = () => resolve(agree()))));
    const order = [];
    const first = alice.ask('do', {}).then(() => order.push('do'));
    const second = alice.ask('now').then(() => order.push('now'));
    await backend.expect('event');
    like(await bob.ask('now'), { success: true, at: timestamp });
    assert.deepEqual(order, []);
    release();
    await Promise.all([first, second]);
    assert.deepEqual(order, ['do', 'now']);
  });

  test('is called by so many at once and no more; beyond the queue there is an error at once', async () => {
    const clients = [];
    for (let at = 0; at < 20; at += 1) clients.push(await connect({ user: `u${at}` }));
    backend.most = 0;
    let release = false;
    backend.answer = on('event', async () => {
      await eventually('the test lets go', () => release);
      return agree();
    });
    const acks = [];
    const all = clients.map(async (client) => acks.push(await client.ask('do', {})));
    await eventually('the overflow is told', () => acks.length >= 8);
    release = true;
    await Promise.all(all);
    assert.ok(backend.most <= 4, `${backend.most} at once`);
    assert.equal(acks.filter(({ success }) => success).length, 12);
    for (const ack of acks.filter(({ success }) => !success)) like(ack, { ...failure('OVERLOADED'), error: { ...failure('OVERLOADED').error, retryAfterMs: 1000 } });
  });

  test('is given up after the time-out', async () => {
    const alice = await connect();
    backend.answer = on('event', () => new Promise(() => {}));
    const began = Date.now();
    like(await alice.ask('do', {}), failure('CALL_FAILED'));
    assert.ok(Date.now() - began < 8_000);
  });
});

describe('a broken backend', () => {
  test('is tried again only where the contract calls it idempotent', async () => {
    const alice = await connect();
    backend.answer = on('event', () => ({ status: 503, body: {} }));
    like(await alice.ask('do', {}), failure('CALL_FAILED'));
    assert.equal(backend.of('event').length, 1);
    let left = 2;
    backend.answer = on('event', () => (left-- > 0 ? { status: 503, body: {} } : agree()));
    assert.equal((await alice.ask('retry', {})).success, true);
    const tries = backend.of('event').filter(({ data }) => data.event === 'retry');
    assert.equal(tries.length, 3);
    assert.equal(new Set(tries.map(({ id }) => id)).size, 1, 'the same event each time');
  });

  test('is left alone for a while, then asked again', async () => {
    const alice = await connect();
    backend.answer = on('event', () => ({ status: 500, body: {} }));
    for (let count = 0; count < 5; count += 1) await alice.ask('do', {});
    const asked = backend.of('event').length;
    const refused = failure('UNAVAILABLE');
    const soon = (ms) => ms > 0 && ms <= 1000;
    like(await alice.ask('do', {}), { ...refused, error: { ...refused.error, retryAfterMs: soon } });
    assert.equal(backend.of('event').length, asked, 'not asked');
    backend.answer = agree;
    await eventually('it is asked again', async () => (await alice.ask('do', {})).success);
  });
});

describe('disconnects', () => {
  test('are told, with the reason', async () => {
    const alice = await connect();
    const { id } = alice;
    alice.close();
    const notice = () => backend.of('disconnect').find(({ data }) => data.socket.id === id);
    const { data } = await eventually('the notice comes', notice);
    like([data.user.id, data.reason], ['alice', text]);
  });

  if (w.redis) {
    test('are told later when the backend is away', async () => {
      const clients = await Promise.all(Array.from({ length: 5 }, (_, at) => connect({ user: `d${at}` })));
      await backend.stop();
      clients.forEach((client) => client.close());
      await eventually('they are gone', async () => (await w.b.metric('roomcast_connections', { nsp: namespace })) === 0);
      await backend.up();
      const told = () => new Set(backend.of('disconnect').map(({ data }) => data.user.id));
      await eventually('all are told', () => [0, 1, 2, 3, 4].every((at) => told().has(`d${at}`)), 30_000);
    });
  }
});
