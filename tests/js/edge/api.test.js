// Tests the HTTP API: keys, answers, errors, batches. The tests in contracts/ cover the events of each contract.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { like, text } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const SCOPED = 'a-key-for-one-contract-0123456789abcdef';
const w = await world({
  contracts: ['embedded:jobs-feed', 'embedded:chat'],
  toml: `[api]\nmax_body = "10kB"\n[[api.keys]]\nname = "scoped"\nsecret = "${SCOPED}"\ncontracts = ["chat"]\n`,
});
const good = { contract: 'jobs-feed', event: 'job:update', data: { jobId: 'j', status: 's' } };
const error = (code) => ({ error: { code, message: text } });
const post = (body, options) => w.a.api('POST', '/api/v1/events', body, options);

afterEach(() => w.clear());

/** The answer's status and error code. Tests assert nothing else of an error besides its message. */
function refused(reply, status, code) {
  assert.equal(reply.status, status, JSON.stringify(reply.body));
  const { details, ...rest } = reply.body.error;
  like({ error: rest }, error(code));
}

describe('keys', () => {
  test('none, a wrong one and another scheme are 401', async () => {
    refused(await post(good, { key: null }), 401, 'AUTHENTICATION_FAILED');
    refused(await post(good, { key: 'wrong' }), 401, 'AUTHENTICATION_FAILED');
    refused(await post(good, { key: null, headers: { authorization: 'Basic eDp5' } }), 401, 'AUTHENTICATION_FAILED');
  });

  test('a key for one contract does not open another', async () => {
    refused(await post(good, { key: SCOPED }), 403, 'AUTHORIZATION_FAILED');
    const message = { from: 's', room: 'r', content: 'c', type: 't' };
    assert.equal((await post({ contract: 'chat', event: 'message', data: message }, { key: SCOPED })).status, 202);
  });

  test('the public listener has no API, and no metrics', async () => {
    for (const path of ['/api/v1/events', '/api/v1/emit', '/metrics', '/api/v1/owners']) {
      assert.equal((await w.a.get(path)).status, 404, path);
      assert.equal((await w.a.get(path, { method: 'POST', body: '{}' })).status, 404, path);
    }
  });
});

describe('answers', () => {
  test('say where it went and what became of it', async () => {
    const [here, there] = [await w.connect({ namespace: '/jobs' }, w.a), await w.connect({ namespace: '/jobs' }, w.b)];
    for (const client of [here, there]) await client.ask('subscribe:jobs');
    const { status, body } = await post(good);
    assert.equal(status, 202);
    assert.deepEqual([...body.rooms].sort(), ['all-jobs', 'job:j']);
    const local = w.a === w.b ? 2 : 1;
    const remote = w.mode === 'memory' ? 'alone' : 'carried';
    assert.deepEqual(
      { accepted: body.accepted, event: body.event, local: body.local, dropped: body.dropped, remote: body.remote },
      { accepted: true, event: 'job:update', local, dropped: 0, remote },
    );
  });

  test('a batch says for each item what happened', async () => {
    const client = await w.connect({ namespace: '/jobs' });
    await client.ask('subscribe:jobs');
    const items = [
      good,
      { ...good, event: 'nonsense' },
      { ...good, data: { jobId: 1 } },
      { ...good, contract: 'nobody' },
      { ...good, data: { jobId: 'k', status: 't', timestamp: 'x' } },
    ];
    for (const body of [items, { events: items }]) {
      const reply = await post(body);
      assert.equal(reply.status, 202);
      const { results } = reply.body;
      assert.deepEqual(results.map(({ accepted }) => accepted), [true, false, false, false, true]);
      assert.deepEqual(
        results.map((result) => result.error?.code),
        [undefined, 'UNKNOWN_EVENT', 'INVALID_PAYLOAD', 'NOT_FOUND', undefined],
      );
      const got = await client.drain(w.a);
      assert.deepEqual(got.map(([, { jobId }]) => jobId), ['j', 'k']);
    }
  });

  test('an empty batch is nothing done', async () => {
    const reply = await post({ events: [] });
    assert.ok([202, 400, 422].includes(reply.status));
  });
});

describe('errors', () => {
  const cases = [
    ['no JSON', '{"contract"', 400],
    ['an empty body', '', 400],
    ['a number', '7', [400, 422]],
    ['null', 'null', [400, 422]],
    ['an unknown member', { ...good, evnet: 'x' }, [400, 422]],
    ['no event', { contract: 'jobs-feed', data: {} }, [400, 422]],
    ['an event that is no string', { ...good, event: 7 }, [400, 422]],
    ['bytes that are no text', new Uint8Array([0xff, 0xfe, 0x00]), 400],
    ['an unknown contract', { ...good, contract: 'nobody' }, 404],
    ['an unknown event', { ...good, event: 'nonsense' }, 404],
    ['wrong data', { ...good, data: [] }, 422],
    ['no data', { contract: 'jobs-feed', event: 'job:update' }, 422],
    ['a room that cannot be', { ...good, data: { jobId: 'a b', status: 's' } }, 422],
    ['a user that is no string', { ...good, params: { userId: { x: 1 } } }, 422],
    ['a body that is too large', { ...good, data: { ...good.data, x: 'y'.repeat(10_000) } }, 413],
  ];
  for (const [what, body, status] of cases) {
    test(`${what}: ${status}`, async () => {
      const reply = await post(body, { headers: { 'content-type': 'application/json' } });
      assert.ok([status].flat().includes(reply.status), `${reply.status} ${JSON.stringify(reply.body)}`);
      like({ code: reply.body.error.code, message: reply.body.error.message }, { code: text, message: text });
    });
  }

  test('a path that does not exist, and a method that is not its own', async () => {
    assert.equal((await w.a.api('GET', '/api/v1/nothing')).status, 404);
    assert.equal((await w.a.api('DELETE', '/api/v1/events')).status, 405);
  });

  test('an emit needs a namespace that exists, and a name', async () => {
    const emit = (body) => w.a.api('POST', '/api/v1/emit', body);
    assert.equal((await emit({ namespace: '/nowhere', event: 'e', args: [] })).status, 404);
    for (const body of [{ namespace: '/jobs', args: [] }, { event: 'e' }, { namespace: '/jobs', event: 'e', args: 7 }]) {
      const { status } = await emit(body);
      assert.ok([400, 404, 422].includes(status), String(status));
    }
  });

  test('a reserved name is not for emits', async () => {
    for (const event of ['connect', 'disconnect', 'connect_error']) {
      const { status } = await w.a.api('POST', '/api/v1/emit', { namespace: '/jobs', event, args: [] });
      assert.ok([400, 422].includes(status), `${event}: ${status}`);
    }
  });
});
