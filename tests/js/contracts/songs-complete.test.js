// Tests the rest of contract 2: cancelling, late joiners, bursts, and deleted histories.
import assert from 'node:assert/strict';
import { after, afterEach, describe, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { TRANSPORTS } from '../harness/client.js';
import { eventually, like, text, timestamp } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const backend = await Backend.start();
const w = await world({ contracts: ['embedded:harmonia-songs'], toml: backend.toml('songs', 'timeout = "1s"\n') });
after(() => backend.stop());
const publish = (event, data) => w.a.publish('harmonia-songs', event, data);
let generations = 0;

async function generationOf(owner) {
  generations += 1;
  const id = `s${generations}`;
  await w.a.own('/', `generation-${id}`, owner);
  return id;
}

async function listener(user, id, options = {}, node = w.b) {
  const client = await w.connect({ user, ...options }, node);
  assert.equal((await client.ask('join-generation', id)).success, true);
  return client;
}

const metadata = (generationId, progress) => ({ generationId, progress, status: 'running', currentStep: 'lyrics' });
const audio = (generationId, progress) => ({
  generationId,
  progress,
  status: 'mixing',
  instrumentsCompleted: 0,
  totalInstruments: 1,
});
const complete = (generationId) => ({
  generationId,
  songId: 's',
  audioUrl: 'u',
  duration: 1,
  fileSize: 2,
  checksum: 'c',
});
const failed = (generationId) => ({
  generationId,
  error: { code: 'CANCEL_FAILED', message: text, recoverable: false },
  stage: 'unknown',
});

afterEach(() => {
  w.clear();
  backend.answer = () => ({ ok: true });
  backend.requests.length = 0;
});

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`cancelling over ${transport}`, () => {
    test('the backend is asked with the user, and its yes is told to the room', async () => {
      const id = await generationOf('alice');
      const alice = await listener('alice', id, { transport });
      const other = await listener('alice', id, { transport }, w.a);
      const asked = await alice.ask('cancel-generation', { generationId: id });
      assert.equal(asked.success, true);
      const cancelled = ['generation-cancelled', { generationId: id, reason: 'user_cancelled', cancelledAt: timestamp }];
      like(await alice.next(), cancelled);
      like(await other.next(), cancelled);
      assert.deepEqual(backend.faults, []);
      const [{ data }] = backend.of('event');
      like(
        [data.contract, data.event, data.payload, data.user.id, data.socket.id],
        ['harmonia-songs', 'cancel-generation', { generationId: id }, 'alice', alice.id],
      );
    });

    test('a no is told to the caller alone', async () => {
      const id = await generationOf('alice');
      const alice = await listener('alice', id, { transport });
      const other = await listener('alice', id, { transport }, w.a);
      for (const answer of [
        () => ({ ok: false, error: { code: 'DONE', message: 'it is done' } }),
        () => ({ status: 409, body: { error: { message: 'it is done' } } }),
        () => ({ status: 500, body: {} }),
        () => ({ status: 200, body: 'nonsense' }),
      ]) {
        backend.answer = answer;
        const ack = await alice.ask('cancel-generation', { generationId: id });
        assert.equal(ack.success, false, JSON.stringify(ack));
        like(await alice.next(), ['generation-error', failed(id)]);
      }
      assert.deepEqual(await alice.drain(w.b), []);
      assert.deepEqual(await other.drain(w.b), []);
    });
  });
}

test('a backend that does not answer in time has refused, and other events pass meanwhile', async () => {
  const id = await generationOf('alice');
  const [alice, bob] = [await listener('alice', id), await listener('alice', id)];
  let release;
  backend.answer = () => new Promise((resolve) => (release = resolve));
  alice.send('cancel-generation', { generationId: id });
  await backend.expect('event');
  assert.equal((await bob.ask('leave-generation', id)).success, true);
  like(await alice.next(), ['generation-error', failed(id)]);
  release({ ok: true });
  assert.deepEqual(await bob.drain(w.b), []);
});

test('without a valid payload the backend is not asked', async () => {
  const alice = await w.connect({ user: 'alice' });
  for (const payload of [{}, { generationId: 7 }, { generationId: '' }, null]) {
    assert.equal((await alice.ask('cancel-generation', payload)).success, false);
  }
  assert.deepEqual(backend.requests, []);
});

describe('late joiners', () => {
  test('whoever joins late, or comes back, gets the last thing known, before anything newer', async () => {
    const id = await generationOf('alice');
    await publish('metadata-generation-progress', metadata(id, 10));
    await eventually('the throttle is open again', async () => {
      const { status } = await w.a.api('POST', '/api/v1/events', {
        contract: 'harmonia-songs',
        event: 'metadata-generation-complete',
        data: {
          generationId: id,
          metadata: { title: 't', lyrics: 'l', genre: 'g', mood: [], syllableCount: 1, wordCount: 1 },
          duration: 1,
        },
      });
      return status === 202;
    });
    await publish('audio-generation-progress', audio(id, 55));
    const late = await listener('alice', id);
    await publish('audio-generation-complete', complete(id));
    assert.deepEqual(await late.next(), ['audio-generation-progress', audio(id, 55)]);
    assert.deepEqual(await late.next(), ['audio-generation-complete', complete(id)]);
    assert.deepEqual(await late.drain(w.a), []);
    const later = await listener('alice', id);
    assert.deepEqual(await later.next(), ['audio-generation-complete', complete(id)]);
    assert.deepEqual(await later.drain(w.a), []);
  });

  test('nobody else gets it', async () => {
    const id = await generationOf('alice');
    await publish('audio-generation-progress', audio(id, 5));
    const bob = await w.connect({ user: 'bob' });
    assert.equal((await bob.ask('join-generation', id)).success, false);
    assert.deepEqual(await bob.drain(w.a), []);
  });
});

describe('bursts', () => {
  test('1,000 updates from two publishers reach clients at the declared rate, and the newest arrives', async () => {
    const id = await generationOf('alice');
    const [near, far] = [await listener('alice', id), await listener('alice', id, {}, w.a)];
    const began = Date.now();
    for (let at = 0; at < 1000; at += 50) {
      const node = w.nodes[(at / 50) % w.nodes.length];
      const events = Array.from({ length: 50 }, (_, more) => ({
        contract: 'harmonia-songs',
        event: 'audio-generation-progress',
        data: audio(id, (at + more) / 10),
      }));
      assert.equal((await node.api('POST', '/api/v1/events', { events })).status, 202);
    }
    for (const client of [near, far]) {
      await eventually('the newest arrives', () => client.inbox.at(-1)?.[1].progress === 99.9);
      const elapsed = Date.now() - began;
      const most = Math.ceil(elapsed / 100) + 2;
      assert.ok(client.inbox.length <= most, `${client.inbox.length} in ${elapsed} ms, at most ${most}`);
      const values = client.inbox.map(([, { progress }]) => progress);
      assert.deepEqual(values, [...values].sort((one, two) => one - two), 'never backwards');
      client.inbox.length = 0;
      assert.deepEqual(await client.drain(w.a), []);
    }
  });

  test('the end is never held back, and never overtaken by older progress', async () => {
    for (const [event, make] of [
      ['audio-generation-complete', complete],
      ['generation-error', (generationId) => ({ ...failed(generationId), stage: 'audio', error: { code: 'x', message: 'm', recoverable: false } })],
      ['generation-cancelled', (generationId) => ({ generationId, reason: 'timeout', cancelledAt: 'now' })],
      ['generation-timeout', (generationId) => ({ generationId, stage: 'audio', timeoutAfter: 1 })],
    ]) {
      const id = await generationOf('alice');
      const [near, far] = [await listener('alice', id), await listener('alice', id, {}, w.a)];
      for (const progress of [1, 2, 3]) await publish('audio-generation-progress', audio(id, progress));
      await publish(event, make(id));
      for (const client of [near, far]) {
        const got = await client.drain(w.a);
        assert.deepEqual(got.at(-1), [event, make(id)]);
        assert.deepEqual(got.at(-2), ['audio-generation-progress', audio(id, 3)], 'what was held back goes first');
        assert.deepEqual(got[0], ['audio-generation-progress', audio(id, 1)]);
      }
    }
  });

  test('two generations do not hold each other back', async () => {
    const [one, two] = [await generationOf('alice'), await generationOf('alice')];
    const [first, second] = [await listener('alice', one), await listener('alice', two)];
    await publish('audio-generation-progress', audio(one, 1));
    await publish('audio-generation-progress', audio(two, 2));
    assert.deepEqual(await first.drain(w.a), [['audio-generation-progress', audio(one, 1)]]);
    assert.deepEqual(await second.drain(w.a), [['audio-generation-progress', audio(two, 2)]]);
  });
});
