// permessage-deflate is agreed on if it is configured, with the official client and with plain ws. Invalid offers are
// refused.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import WebSocket from 'ws';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { ENGINE, world } from '../harness/world.js';

const MAX_PAYLOAD = 100_000;
const w = await world({
  contracts: [join(ROOT, 'tests/js/fixtures/mirror.toml')],
  env: { ROOMCAST_SERVER__COMPRESSION__THRESHOLD: '100B', ROOMCAST_SERVER__MAX_PAYLOAD: `${MAX_PAYLOAD}` },
});
const OFFER = { perMessageDeflate: { threshold: 0 } };
// The official client offers compression unless this option switches it off.
const PLAIN = { perMessageDeflate: false };
const PATH = '/socket.io/?EIO=4&transport=websocket';
const compressed = ENGINE === 'native';

afterEach(() => w.clear());

/** A plain WebSocket client that is connected to the fixture's namespace. */
async function bare(options) {
  const ws = new WebSocket(`ws${w.b.url.slice(4)}${PATH}`, options);
  const inbox = [];
  // Heartbeats are not collected.
  ws.on('message', (data) => data.toString() === '2' || inbox.push(data.toString()));
  await once(ws, 'open');
  return { ws, inbox };
}

describe('compression', () => {
  test('the official client and the node agree on it, and everything arrives whole, both ways', async () => {
    const client = await w.connect({ namespace: '/mirror', ...OFFER });
    const plain = await w.connect({ namespace: '/mirror', ...PLAIN });
    assert.equal('permessage-deflate' in plain.socket.io.engine.transport.ws._extensions, false);
    assert.equal('permessage-deflate' in client.socket.io.engine.transport.ws._extensions, compressed);
    assert.equal(await client.node.metric('roomcast_websockets_compressed'), compressed ? 1 : 0);
    const texts = ['', 'x', 'ab'.repeat(40), 'ä€😀'.repeat(2000), randomBytes(30_000).toString('base64')];
    for (const who of [client, plain]) {
      for (const sent of texts) assert.deepEqual(await who.ask('echo', sent), sent);
      for (const sent of [Buffer.alloc(20_000, 7), randomBytes(5000)]) {
        assert.deepEqual(Buffer.from(await who.ask('echo', sent)), sent);
      }
    }
  });

  test('a broadcast reaches those who agreed on it and those who did not', async () => {
    const clients = [];
    for (const options of [OFFER, PLAIN, OFFER]) clients.push(await w.connect({ namespace: '/mirror', ...options }));
    for (const client of clients) await client.ask('enter', 'hall');
    const words = 'lorem ipsum '.repeat(500);
    clients[0].send('tell', 'hall', words);
    for (const client of clients) assert.deepEqual(await client.next(), ['told', 'hall', words]);
  });

  test('ws reads what it got compressed, and its bomb ends the connection with 1009', async () => {
    const { ws, inbox } = await bare(OFFER);
    ws.send('40/mirror,');
    await eventually('it is in', () => inbox.length === 2);
    const words = JSON.stringify(['echo', 'again and '.repeat(300)]);
    ws.send(`42/mirror,${words}`);
    await eventually('its words are back', () => inbox.length === 3);
    assert.equal(inbox[2], `42/mirror,${words.replace('echo', 'echoed')}`);
    ws.send(`42/mirror,["echo","${'a'.repeat(MAX_PAYLOAD * 50)}"]`);
    const [code] = await once(ws, 'close');
    if (compressed) assert.equal(code, 1009);
  });

  test('an offer that asks for less than we have is declined, and the connection works', async () => {
    const { ws, inbox } = await bare({ perMessageDeflate: { serverMaxWindowBits: 9 } });
    assert.equal(ws.extensions, '');
    await eventually('it is open', () => inbox.length === 1);
    assert.match(inbox[0], /^0\{/);
    ws.close();
  });
});
