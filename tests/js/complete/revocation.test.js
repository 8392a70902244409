// Tokens that are revoked before they expire.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Backend } from '../harness/backend.js';
import { Node, ROOT } from '../harness/node.js';
import { capability, seconds, token } from '../harness/token.js';
import { world } from '../harness/world.js';

const namespace = '/tokens';
const contracts = [join(ROOT, 'tests/js/fixtures/tokens.toml'), 'embedded:chat'];
const w = await world({ contracts });
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
const path = '/api/v1/revocations';

afterEach(() => w.clear());

const refused = (options, node) =>
  w.connect({ namespace, ...options }, node).then(
    () => undefined,
    (error) => error.message,
  );
const REVOKED = 'AUTHENTICATION_FAILED: the token was revoked';

async function revoke(body, node = first) {
  const answer = await node.api('POST', path, body);
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  assert.equal(answer.body.remote, w.redis ? 'carried' : 'alone');
  return answer.body;
}

async function lift(body, node = last) {
  const answer = await node.api('DELETE', path, body);
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  return answer.body;
}

describe('a revoked user', () => {
  for (const transport of ['websocket', 'polling', 'upgrade']) {
    test(`is disconnected at once and refused until the revocation ends (${transport})`, async () => {
      const user = `ada-${transport}`;
      const here = await w.connect({ namespace, user, transport }, first);
      const there = await w.connect({ namespace, user, transport }, last);
      const other = await w.connect({ namespace, user: 'bob', transport }, last);
      const { changed, local } = await revoke({ users: [user] });
      assert.deepEqual([changed, local], [1, w.redis ? 1 : 2]);
      for (const client of [here, there]) {
        assert.equal(await client.ended(2_000), 'io server disconnect');
        assert.equal(client.inbox[0][0], 'oops');
        assert.equal(client.inbox[0][1].code, 'AUTHENTICATION_FAILED');
      }
      for (const node of [first, last]) assert.equal(await refused({ user, transport }, node), REVOKED);
      assert.deepEqual(await other.ask('echo', 1), 1);
      assert.equal((await lift({ users: [user] })).changed, 1);
      await eventually('the user may come again', async () => (await refused({ user }, first)) === undefined);
    });
  }

  test('may come back with a newer token, where the revocation says so', async () => {
    const old = token({ sub: 'eve', iat: seconds(-5) });
    const client = await w.connect({ namespace, token: old }, last);
    await revoke({ users: ['eve'], spare_newer: true });
    await client.ended(2_000);
    assert.equal(await refused({ token: old }, last), REVOKED);
    assert.equal(await refused({ token: token({ sub: 'eve', iat: seconds(2) }) }, last), undefined);
  });
});

describe('a revoked token', () => {
  test('is refused by its jti, and no other of the user is', async () => {
    const one = await w.connect({ namespace, user: 'carol', claims: { jti: 'one' } }, last);
    const two = await w.connect({ namespace, user: 'carol', claims: { jti: 'two' } }, last);
    await revoke({ tokens: ['one'] });
    assert.equal(await one.ended(2_000), 'io server disconnect');
    assert.equal(await refused({ user: 'carol', claims: { jti: 'one' } }, last), REVOKED);
    assert.equal(await two.ask('echo', 2), 2);
  });

  test('opens no room as a capability', async () => {
    const client = await w.connect({ namespace, user: 'dora' }, last);
    const key = capability('own:1', { jti: 'cap-1' });
    assert.equal((await client.ask('enter', { id: '1', capability: key })).success, true);
    await revoke({ tokens: ['cap-1'] });
    const entered = () => client.ask('enter', { id: '1', capability: key });
    await eventually('it opens nothing', async () => (await entered()).error?.code === 'AUTHORIZATION_FAILED');
  });
});

test('a revoked socket takes its token along, also one without jti', async () => {
  const credential = token({ sub: 'fay' });
  const client = await w.connect({ namespace, token: credential }, last);
  const other = await w.connect({ namespace, token: token({ sub: 'fay', n: 1 }) }, last);
  await revoke({ sockets: [client.id] });
  assert.equal(await client.ended(2_000), 'io server disconnect');
  await eventually('its token is refused', async () => (await refused({ token: credential }, first)) === REVOKED);
  assert.equal(await other.ask('echo', 3), 3);
});

test('who is revoked between the look at its token and its session does not stay', async (t) => {
  const backend = await Backend.start();
  const hooked = [join(ROOT, 'tests/js/fixtures/hooked.toml')];
  const node = await Node.start({ contracts: hooked, redis: w.redis, toml: backend.toml('backend') });
  t.after(async () => await Promise.all([node.stop(), backend.stop()]));
  backend.answer = async ({ type }) => {
    // The node has checked the token before it makes this call.
    if (type === 'io.roomcast.connect') await revoke({ users: ['late'] }, node);
    return { ok: true };
  };
  const late = w.open({ namespace: '/hooked', user: 'late' }, node);
  assert.equal(await late.ended(5_000), 'io server disconnect');
  assert.deepEqual(late.inbox.map(([name, { code }]) => [name, code]), [['failed', 'AUTHENTICATION_FAILED']]);
  await eventually('nobody is there', async () => (await node.metric('roomcast_connections', { nsp: '/hooked' })) === 0);
});

test('revocations are listed in pages, and end by themselves', async () => {
  await revoke({ users: ['gus', 'hal'], tokens: ['t-9'], ttl: '2s' });
  const seen = [];
  let cursor = '';
  do {
    const { body } = await last.api('GET', `${path}?limit=1${cursor}`);
    seen.push(...body.items.map(({ kind, id }) => `${kind}:${id}`));
    cursor = body.next && `&cursor=${encodeURIComponent(body.next)}`;
  } while (cursor);
  for (const id of ['user:gus', 'user:hal', 'token:t-9']) assert.equal(seen.filter((one) => one === id).length, 1, id);
  assert.equal(await refused({ user: 'gus' }, last), REVOKED);
  await eventually('it has ended', async () => (await refused({ user: 'gus' }, last)) === undefined);
});

test('naming nobody is a mistake, and a limited key may not revoke', async () => {
  assert.equal((await first.api('POST', path, {})).status, 422);
  assert.equal((await first.api('POST', path, { users: [] })).status, 422);
  assert.equal((await first.api('POST', path, { users: ['x'] }, { key: null })).status, 401);
});

if (w.redis) {
  test('what is revoked while Redis is away holds here at once, and everywhere once it is back, empty', async () => {
    await revoke({ users: ['before'] });
    const there = await w.connect({ namespace, user: 'during' }, last);
    await w.redis.kill();
    await eventually('Redis is away', async () => !(await first.get('/ready')).body.websocket.redis.connected);
    const { status, body } = await first.api('POST', path, { users: ['during'] });
    assert.deepEqual([status, body.remote, body.reason], [202, 'not_carried', 'away']);
    assert.equal(await refused({ user: 'during' }, first), REVOKED);
    assert.equal(await refused({ user: 'before' }, last), REVOKED, 'the last known set still holds');
    assert.equal(await there.ask('echo', 4), 4, 'the other node does not know yet');
    await w.redis.up();
    assert.equal(await there.ended(), 'io server disconnect');
    for (const node of [first, last]) {
      assert.equal(await refused({ user: 'during' }, node), REVOKED);
      assert.equal(await refused({ user: 'before' }, node), REVOKED);
    }
    await eventually('Redis has both again', async () => {
      const [key] = await w.redis.keys('*:revocations:*:entries');
      const fields = key ? await w.redis.call('HKEYS', key) : [];
      return fields.includes('user:before') && fields.includes('user:during');
    });
    assert.ok((await w.redis.call('PTTL', (await w.redis.keys('*:revocations:*:entries'))[0])) > 0);
    // The next steps need both nodes to receive each other's messages again.
    for (const node of w.nodes) await eventually('it is whole', async () => (await node.get('/ready')).body.status === 'ready');
  });
}

test('what a client had started is ended when the API takes it out of a room', async () => {
  const [one, two] = [await w.connect({ user: 'ida' }, last), await w.connect({ user: 'jan' }, first)];
  for (const client of [one, two]) await client.ask('room:join', { room: 'den' });
  two.inbox.length = 0;
  one.send('typing:start', { room: 'den' });
  const typing = () => two.inbox.filter(([event]) => event.startsWith('typing')).map(([, { isTyping }]) => isTyping);
  await eventually('it types', () => typing().includes(true));
  const { status } = await first.api('POST', '/api/v1/leave', { namespace: '/', users: ['ida'], room: 'den' });
  assert.equal(status, 202);
  await eventually('it types no more', () => typing().at(-1) === false);
  assert.deepEqual(typing(), [true, false]);
});
