// Parts of the handshake that contracts use: parameters of the query, headers, and the payload of CONNECT.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const contracts = ['handshake', 'handshake-auth'].map((name) => join(ROOT, `tests/js/fixtures/${name}.toml`));
const w = await world({ contracts });
afterEach(() => w.clear());
const connect = (options) => w.connect({ namespace: '/handshake', ...options });

for (const transport of Object.keys(TRANSPORTS)) {
  test(`over ${transport}: the query, a header and the payload of CONNECT are known`, async () => {
    const client = await connect({
      transport,
      query: { lang: 'de & en', other: 'x' },
      extraHeaders: { 'X-Tenant': 'acme', 'X-Other': 'y' },
      auth: { device: { model: 'm1', n: 7 }, more: 1 },
    });
    assert.deepEqual(await client.next(), ['hello', 'de & en', 'acme', { model: 'm1', n: 7 }]);
    assert.deepEqual(await client.ask('where'), { lang: 'de & en', model: 'm1' });
    await w.a.publish('handshake', 'note', { n: 1 }, { tenant: 'acme' });
    assert.deepEqual(await client.next(), ['note', { n: 1 }]);
  });

  test(`over ${transport}: parts that are not there have no value`, async () => {
    const client = await connect({ transport, query: { tenant: 'umbra' } });
    assert.deepEqual(await client.next(), ['hello', null, null, null]);
    assert.deepEqual(await client.ask('where'), {});
    await w.a.publish('handshake', 'note', { n: 2 }, { tenant: 'umbra' });
    assert.deepEqual(await client.next(), ['note', { n: 2 }]);
  });
}

test('a contract can use the whole payload of CONNECT, and each namespace has its own', async () => {
  const auth = { a: 1, list: [null, 'x'] };
  const client = await w.connect({ namespace: '/handshake-auth', auth });
  assert.deepEqual(await client.next(), ['auth', auth]);
  const other = await w.connect({ namespace: '/handshake-auth' });
  assert.deepEqual(await other.next(), ['auth', {}]);
});

test('more than a session keeps is refused', async () => {
  const client = w.open({ namespace: '/handshake-auth', auth: { text: 'x'.repeat(5_000) } });
  await assert.rejects(client.connected(), /TOO_LARGE/);
  const fits = await w.connect({ namespace: '/handshake', auth: { text: 'x'.repeat(5_000) } });
  assert.deepEqual(await fits.next(), ['hello', null, null, null], 'only what is named counts');
});
