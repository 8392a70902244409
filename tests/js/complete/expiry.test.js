// A client is disconnected when its token expires, unless it sends a newer one.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { seconds, token } from '../harness/token.js';
import { world } from '../harness/world.js';

const namespace = '/tokens';
const LEEWAY_MS = 1_000;
const SLACK_MS = 900;
const contracts = ['tokens', 'returns'].map((name) => join(ROOT, `tests/js/fixtures/${name}.toml`));
const w = await world({ contracts, env: { ROOMCAST_AUTH__LEEWAY: `${LEEWAY_MS}ms` } });

afterEach(() => w.clear());

const warnings = (client) => client.inbox.filter(([event]) => event === 'token:expiring').map(([, data]) => data);

describe('a token that ends', () => {
  for (const transport of ['websocket', 'polling']) {
    test(`is warned of, and its client is disconnected on time (${transport})`, { concurrency: true }, async () => {
      const exp = seconds(4);
      const client = await w.connect({ namespace, transport, token: token({ sub: 'ada', exp }) });
      assert.deepEqual(warnings(client), []);
      const [warning] = await eventually('the warning', () => warnings(client).length > 0 && warnings(client));
      assert.ok(Math.abs(Date.now() - (exp * 1000 - 2_000)) < SLACK_MS, 'two seconds before');
      assert.equal(Date.parse(warning.expiresAt), exp * 1000);
      assert.ok(warning.expiresIn >= 1 && warning.expiresIn <= 2);
      assert.equal(await client.ended(), 'io server disconnect');
      const late = Date.now() - (exp * 1000 + LEEWAY_MS);
      assert.ok(late >= -50 && late < SLACK_MS, `${late} ms after its end and the leeway`);
      assert.equal(client.inbox.at(-1)[0], 'oops');
      assert.equal(client.inbox.at(-1)[1].code, 'AUTHENTICATION_FAILED');
      assert.equal(warnings(client).length, 1);
      await assert.rejects(w.connect({ namespace, token: token({ sub: 'ada', exp }) }), /expired/, 'nor may it return');
    });
  }

  test('closes the connection where the contract says so, and the client returns with a newer one', async () => {
    const exp = seconds(1);
    let asked = 0;
    const client = w.open({
      namespace: '/returns',
      reconnection: true,
      reconnectionDelay: 50,
      auth: (give) => give({ token: token({ sub: 'bob', exp: (asked += 1) === 1 ? exp : seconds(60) }) }),
    });
    await client.connected();
    assert.equal(await client.ended(), 'transport close');
    await eventually('it is back', () => client.socket.connected);
    assert.equal(await client.ask('echo', 1), 1);
  });

  test('is not warned of where the contract names no event', async () => {
    const client = await w.connect({ namespace: '/returns', token: token({ sub: 'bob', exp: seconds(1) }) });
    assert.equal(await client.ended(), 'transport close');
    assert.deepEqual(client.inbox, []);
  });
});

describe('a newer token', () => {
  test('of the same user replaces the old one, as a string or in an object', async () => {
    const client = await w.connect({ namespace, token: token({ sub: 'cat', exp: seconds(1) }) });
    await eventually('it is warned at once', () => warnings(client).length === 1);
    const exp = seconds(3);
    const done = await client.ask('token:refresh', token({ sub: 'cat', exp }));
    assert.equal(done.success, true);
    assert.equal(Date.parse(done.expiresAt), exp * 1000);
    await eventually('it is warned again', () => warnings(client).length === 2, 4_000);
    const last = seconds(60);
    assert.equal((await client.ask('token:refresh', { token: token({ sub: 'cat', exp: last }) })).success, true);
    await new Promise((resolve) => setTimeout(resolve, exp * 1000 + LEEWAY_MS + SLACK_MS - Date.now()));
    assert.equal(await client.ask('echo', 'there'), 'there', 'neither end has disconnected it');
  });

  test('changes roles: rooms that no longer let the client in are left, the others are not', async () => {
    const client = await w.connect({ namespace, user: 'dan', claims: { roles: ['staff'] } });
    assert.equal((await client.ask('serve')).success, true);
    const { body } = await w.b.api('POST', '/api/v1/join', { namespace, sockets: [client.id], room: 'own:1' });
    assert.equal(body.accepted, true);
    await eventually('it is in both', async () => (await w.b.metric('roomcast_connections_opened_total')) > 0);
    const done = await client.ask('token:refresh', token({ sub: 'dan', roles: [] }));
    assert.deepEqual(done.left, ['staff']);
    assert.equal((await client.ask('serve')).error.code, 'AUTHORIZATION_FAILED');
    const again = await client.ask('token:refresh', token({ sub: 'dan', roles: ['staff'] }));
    assert.equal(again.left, undefined);
    assert.equal((await client.ask('serve')).success, true);
    const inRoom = async () => (await w.b.emit({ namespace, rooms: ['own:1'], event: 'hi' })).local;
    assert.equal(await inRoom(), 1, 'the backend put it there, and no rule');
  });

  test('of another user, or one that does not hold, is refused, and the old one stays', async () => {
    const client = await w.connect({ namespace, user: 'eve' });
    const code = async (value) => (await client.ask('token:refresh', value)).error?.code;
    assert.equal(await code(token({ sub: 'mallory' })), 'AUTHORIZATION_FAILED');
    assert.equal(await code(token({ sub: 'eve' }, { secret: 'another-secret-of-at-least-32-bytes!' })), 'AUTHENTICATION_FAILED');
    assert.equal(await code(token({ sub: 'eve', exp: seconds(-60) })), 'AUTHENTICATION_FAILED');
    assert.equal(await code(token({ sub: 'eve', use: 'room', room: 'own:1' })), 'AUTHENTICATION_FAILED');
    for (const rubbish of [undefined, null, 5, {}, { token: 5 }, []]) assert.equal(await code(rubbish), 'INVALID_PAYLOAD');
    client.send('token:refresh', token({ sub: 'mallory' }));
    await eventually('without an ack, the error event', () => client.inbox.some(([event, e]) => event === 'oops' && e.code === 'AUTHORIZATION_FAILED'));
    assert.equal(await client.ask('echo', 1), 1);
  });

  test('that is revoked is refused', async () => {
    const client = await w.connect({ namespace, user: 'fay', claims: { jti: 'fay-1' } });
    await w.b.api('POST', '/api/v1/revocations', { tokens: ['fay-2'] });
    const refused = await client.ask('token:refresh', token({ sub: 'fay', jti: 'fay-2' }));
    assert.equal(refused.error.code, 'AUTHENTICATION_FAILED');
    assert.equal((await client.ask('token:refresh', token({ sub: 'fay', jti: 'fay-3' }))).success, true);
    await w.b.api('POST', '/api/v1/revocations', { tokens: ['fay-1'] });
    assert.equal(await client.ask('echo', 1), 1, 'the old one is no longer its token');
    await w.b.api('POST', '/api/v1/revocations', { tokens: ['fay-3'] });
    assert.equal(await client.ended(), 'io server disconnect');
  });
});
