// Contract 2: two-stage song generation. For cancelling, late joiners, conflation and deletion see
// songs-complete.test.js.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { like, text, timestamp } from '../harness/eventually.js';
import { capability } from '../harness/token.js';
import { world } from '../harness/world.js';

const w = await world({
  contracts: ['embedded:harmonia-songs'],
  toml: '[hooks.songs]\nurl = "http://127.0.0.1:9/unused"\nsecret = "a-hook-secret-of-the-tests-0123456789"\n',
});
const publish = (event, data) => w.a.publish('harmonia-songs', event, data);
let generations = 0;

async function generationOf(owner) {
  generations += 1;
  const id = `g${generations}`;
  await w.a.own('/', `generation-${id}`, owner);
  return id;
}

/** One server event of each kind, in the order of the stages of a song's generation. */
const story = (generationId) => [
  ['metadata-generation-started', { userId: 'alice', narrative: 'a sea', timestamp: '2026-01-01T00:00:00.000Z', model: 'm1' }],
  ['metadata-generation-progress', { progress: 40, status: 'running', currentStep: 'lyrics', tokensGenerated: 12 }],
  [
    'metadata-generation-complete',
    { metadata: { title: 't', lyrics: 'l', genre: 'g', mood: ['calm'], syllableCount: 3, wordCount: 2 }, duration: 900 },
  ],
  ['audio-generation-started', { songId: 's1', instruments: ['harp'], duration: 60, bpm: 90 }],
  [
    'audio-generation-progress',
    { progress: 10.5, status: 'mixing', currentInstrument: 'harp', instrumentsCompleted: 0, totalInstruments: 1 },
  ],
  ['audio-generation-complete', { songId: 's1', audioUrl: 'https://a.example/s1', duration: 60, fileSize: 9, checksum: 'ab' }],
  ['generation-error', { error: { code: 'X', message: 'm', details: { a: 1 }, recoverable: true }, stage: 'audio' }],
  ['generation-cancelled', { reason: 'timeout', cancelledAt: '2026-01-01T00:00:00.000Z' }],
  ['generation-timeout', { stage: 'metadata', timeoutAfter: 30 }],
].map(([event, data]) => [event, { generationId, ...data }]);

afterEach(() => w.clear());

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    for (const [form, payload] of [
      ['the bare id', (id) => id],
      ['an object', (id) => ({ generationId: id })],
    ]) {
      test(`joining with ${form} lets every event of the story through, to nobody else, until leaving`, async () => {
        const [alice, bob] = await Promise.all([w.connect({ user: 'alice', transport }), w.connect({ user: 'bob', transport })]);
        const id = await generationOf('alice');
        const { success, room } = await alice.ask('join-generation', payload(id));
        assert.deepEqual({ success, room }, { success: true, room: `generation-${id}` });
        like(await bob.ask('join-generation', payload(id)), {
          success: false,
          error: { code: 'AUTHORIZATION_FAILED', message: text },
        });
        for (const [event, data] of story(id)) await publish(event, data);
        assert.deepEqual(await alice.drain(w.a), story(id));
        assert.deepEqual(await bob.drain(w.a), []);

        assert.deepEqual(await alice.ask('leave-generation', payload(id)), { success: true, room: `generation-${id}` });
        await publish('audio-generation-started', story(id)[3][1]);
        assert.deepEqual(await alice.drain(w.a), []);
      });
    }
  });
}

test('the two forms name the same room', async () => {
  const alice = await w.connect({ user: 'alice' });
  const id = await generationOf('alice');
  await alice.ask('join-generation', id);
  assert.deepEqual(await alice.ask('leave-generation', { generationId: id }), { success: true, room: `generation-${id}` });
  await publish(...story(id)[3]);
  assert.deepEqual(await alice.drain(w.a), []);
});

test('members that the table does not know pass through', async () => {
  const alice = await w.connect({ user: 'alice' });
  const id = await generationOf('alice');
  await alice.ask('join-generation', id);
  const [event, data] = story(id)[3];
  const more = { ...data, tempoMap: [{ at: 0, bpm: 90.5 }], text: '\u2028 "ü" \u0000', none: null };
  await publish(event, more);
  assert.deepEqual(await alice.drain(w.a), [[event, more]]);
});

test('times that the backend leaves out are filled in', async () => {
  const alice = await w.connect({ user: 'alice' });
  const id = await generationOf('alice');
  await alice.ask('join-generation', id);
  await publish('generation-cancelled', { generationId: id, reason: 'system_error' });
  like(await alice.drain(w.a), [
    ['generation-cancelled', { generationId: id, reason: 'system_error', cancelledAt: timestamp }],
  ]);
});

describe('own generations only', () => {
  test('by a claim, by a capability and by role', async () => {
    const by = async (options, payload) => (await (await w.connect(options)).ask('join-generation', payload)).success;
    assert.equal(await by({ user: 'a', claims: { rooms: ['generation-claimed'] } }, 'claimed'), true);
    const key = capability('generation-lent');
    assert.equal(await by({ user: 'a' }, { generationId: 'lent', capability: key }), true);
    assert.equal(await by({ user: 'a' }, { generationId: 'not-lent', capability: key }), false);
    assert.equal(await by({ user: 'a' }, 'anything'), false);
    assert.equal(await by({ user: 'root', claims: { roles: ['admin'] } }, 'anything'), true);
  });
});

describe('what a client may not send', () => {
  for (const payload of [undefined, '', 7, null, true, [], {}, { generationId: '' }, { generationId: 9 }, { id: 'g' }]) {
    test(`join-generation ${JSON.stringify(payload)}`, async () => {
      const root = await w.connect({ user: 'root', claims: { roles: ['admin'] } });
      const ack = payload === undefined ? await root.ask('join-generation') : await root.ask('join-generation', payload);
      like(ack, { success: false, error: { code: 'INVALID_PAYLOAD', message: text } });
    });
  }
});

describe('what a backend may not publish', () => {
  const wrong = {
    'metadata-generation-progress': { progress: 101 },
    'audio-generation-progress': { progress: -1 },
    'generation-error': { stage: 'unheard' },
    'generation-cancelled': { reason: 'boredom' },
    'metadata-generation-started': { model: undefined },
    'metadata-generation-complete': { metadata: { title: 'only' } },
    'audio-generation-started': { instruments: 'harp' },
    'audio-generation-complete': { checksum: 5 },
    'generation-timeout': { timeoutAfter: 'soon' },
  };
  for (const [event, change] of Object.entries(wrong)) {
    test(`${event} with ${JSON.stringify(change)}`, async () => {
      const good = story('g').find(([name]) => name === event)[1];
      const { status, body } = await w.a.api('POST', '/api/v1/events', {
        contract: 'harmonia-songs',
        event,
        data: { ...good, ...change },
      });
      assert.equal(status, 422, JSON.stringify(body));
      assert.equal(body.error.code, 'INVALID_PAYLOAD');
    });
  }
});
