// Clients with socket.io-msgpack-parser beside clients without it: the same rooms, contracts, acks and limits. Other suites run with
// this parser as a whole: see `msgpack` in suites.json.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { eventually, like, text } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { RawSession } from '../harness/raw.js';
import { token } from '../harness/token.js';
import { world } from '../harness/world.js';

const { Encoder, Decoder } = createRequire(import.meta.url)('socket.io-msgpack-parser');
const fixture = (name) => join(ROOT, `tests/js/fixtures/${name}.toml`);
const MAX_PAYLOAD = 200_000;
const w = await world({
  contracts: [fixture('mirror'), 'embedded:chat'],
  toml: `[server]\nmax_payload = "${MAX_PAYLOAD}B"\ncompression = { threshold = "200B" }\n`,
});
const far = w.nodes.at(0);
const namespace = '/mirror';
const msgpack = (options = {}, node = w.b) => w.connect({ namespace, encoding: 'msgpack', ...options }, node);
const json = (options = {}, node = w.b) => w.connect({ namespace, encoding: 'json', ...options }, node);

afterEach(() => w.clear());

/** Emits an event. Resolves to the arguments of its acknowledgement. */
function acked(client, ...event) {
  return new Promise((resolve) => client.socket.emit(...event, (...answer) => resolve(answer)));
}

const BYTES = Buffer.from([0, 1, 0xff]);
const LONG = { text: 'ü'.repeat(300) };

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    test('both kinds of clients are in one room, on every node, and get the same', async () => {
      const all = [];
      for (const node of w.nodes) all.push(await msgpack({ transport }, node), await json({ transport }, node));
      for (const client of all) assert.equal((await client.ask('enter', 'mixed')).success, true);
      for (const sender of all) {
        for (const args of [[1, { a: [true, null, 2.5] }], [BYTES, { deep: [BYTES] }, 'x'], [LONG], [2 ** 53 - 1, -(2 ** 53) + 1]]) {
          sender.send('tell', 'mixed', ...args);
          for (const client of all) assert.deepEqual(await client.next(), ['told', 'mixed', ...args]);
        }
      }
    });

    test('acks carry any number of arguments, both ways', async () => {
      const client = await msgpack({ transport }, far);
      for (const args of [[], [1, 'two', { three: null }], [BYTES, [BYTES]]]) {
        assert.deepEqual(await acked(client, 'echo', ...args), args);
        assert.deepEqual(await client.next(), ['echoed', ...args]);
      }
      client.socket.on('confirm', (...args) => args.pop()('yes', ...args));
      const { body } = await w.b.api('POST', '/api/v1/ask', { namespace, sockets: [client.id], event: 'confirm', args: ['sure?', 7] });
      assert.deepEqual(body.answers.map(({ args }) => args), [['yes', 'sure?', 7]]);
    });

    test('a refused client is told the code', async () => {
      await assert.rejects(w.connect({ transport, encoding: 'msgpack', token: 'x' }), (error) => {
        assert.match(error.message, /^AUTHENTICATION_FAILED: /);
        return error.data.code === 'AUTHENTICATION_FAILED';
      });
      await assert.rejects(msgpack({ transport, namespace: '/nowhere' }), /Invalid namespace/);
      await assert.rejects(msgpack({ transport, auth: { token: BYTES } }), (error) => error.data.code === 'INVALID_PAYLOAD');
    });

    test('what JSON does not have is refused with a code, and the client stays', async () => {
      const client = await msgpack({ transport });
      const refused = (code) => ({ success: false, error: { code, message: text } });
      for (const number of [NaN, Infinity, -Infinity]) like(await client.ask('echo', { number }), refused('INVALID_PAYLOAD'));
      client.send('echo', NaN);
      like((await client.next())[0], 'failed');
      const deep = Array.from({ length: 130 }).reduce((inner) => [inner], 0);
      like(await client.ask('echo', deep), refused('TOO_LARGE'));
      // The character U+0001 is one byte in MessagePack and six bytes in JSON.
      like(await client.ask('echo', '\u0001'.repeat(MAX_PAYLOAD / 5)), refused('TOO_LARGE'));
      const at = new Date(1_764_590_400_123);
      assert.deepEqual(await acked(client, 'echo', at, undefined, { a: undefined, b: 1 }), [at.toJSON(), null, { b: 1 }]);
      // An ArrayBuffer is sent, as in a browser, where binary is no Buffer.
      const [bytes] = await acked(client, 'echo', new Uint8Array([0, 1, 255]).buffer);
      assert.deepEqual(bytes, BYTES);
      assert.equal(client.disconnected, undefined);
    });

    test('it may leave one namespace and stay in another', async () => {
      const client = await msgpack({ transport });
      const chat = client.socket.io.socket('/', { auth: { token: token({ sub: 'ann' }) } });
      await eventually('the second namespace is connected', () => chat.connected);
      client.socket.disconnect();
      assert.equal((await chat.timeout(5_000).emitWithAck('ping')).success, true);
      chat.disconnect();
    });
  });
}

/** A WebSocket whose packets are written by hand. */
async function raw(first) {
  const session = await RawSession.unconnected(w.a);
  session.send(first);
  return session;
}
const encode = (packet) => new Encoder().encode(packet)[0];
const CONNECT = encode({ type: 0, nsp: namespace, data: {} });

async function connected() {
  const session = await raw(CONNECT);
  await eventually('the namespace is connected', () => session.packets.some(Buffer.isBuffer));
  return session;
}

test('integers of 64 bits pass exactly', async () => {
  const session = await connected();
  const numbers = Buffer.from('93cfffffffffffffffffd38000000000000000cf0020000000000001', 'hex');
  // `["echo", [2^64 - 1, -2^63, 2^53 + 1]]`, which JavaScript cannot write.
  session.send(Buffer.concat([Buffer.from('83a474797065 02 a36e7370 a7'.replaceAll(' ', ''), 'hex'), Buffer.from(namespace), Buffer.from('a464617461 92 a46563686f'.replaceAll(' ', ''), 'hex'), numbers]));
  const echoed = await eventually('the event comes back', () => session.packets.find((packet) => packet.includes?.(numbers)));
  assert.ok(echoed.includes('echoed'));
  session.close();
});

test('hostile packets end their own connection and nothing else', async () => {
  const witness = await msgpack({}, w.a);
  const event = (data) => Buffer.concat([encode({ type: 2, nsp: namespace }).fill(0x83, 0, 1), Buffer.from('a464617461', 'hex'), data]);
  const huge = (marker) => event(Buffer.from(`92a46563686f${marker}ffffffff`, 'hex'));
  const packets = {
    'lengths of 4 GiB': ['db', 'c6', 'dd', 'df', 'c9'].map(huge),
    'rubbish': [Buffer.from([0xc1]), Buffer.alloc(0), Buffer.from('93a1', 'hex'), event(Buffer.from('93a1', 'hex'))],
    'no packet': [encode([]), encode({ type: 9, nsp: namespace }), encode({ type: 2, nsp: namespace }), encode({ type: 2, nsp: '/else', data: ['e'] })],
    'text': ['42/mirror,["echo"]'],
    'no event': [encode({ type: 2, nsp: namespace, data: {} }), encode({ type: 3, nsp: namespace, data: [] })],
  };
  for (const [what, list] of Object.entries(packets)) {
    for (const packet of list) {
      const session = await connected();
      session.send(packet);
      await eventually(`${what} ends the connection`, () => session.closed !== undefined);
    }
  }
  assert.deepEqual(await acked(witness, 'echo', 1), [1]);
  // The node reads an event with 100,000 nested arrays without recursion, and refuses it.
  const session = await connected();
  session.send(event(Buffer.concat([Buffer.from('92a46563686f', 'hex'), Buffer.alloc(100_000, 0x91), Buffer.from([0])])));
  const failed = () => session.packets.filter(Buffer.isBuffer).some((packet) => packet.includes('TOO_LARGE'));
  await eventually('it is refused', failed);
  session.close();
});

test('packets in MessagePack are no attachments of a client that began with JSON', async () => {
  const session = await raw(`40${namespace},`);
  await session.until('the namespace is connected', (packet) => packet.startsWith('40'));
  session.send(CONNECT);
  await eventually('the connection ends', () => session.closed !== undefined);
});

test('what the node writes is read by the parser', async () => {
  const session = await connected();
  const decoder = new Decoder();
  const read = [];
  decoder.on('decoded', (packet) => read.push(packet));
  session.send(encode({ type: 2, nsp: namespace, data: ['echo', 1], id: 5 }));
  session.send(encode({ type: 0, nsp: '/nowhere' }));
  await eventually('all packets arrive', () => session.packets.filter(Buffer.isBuffer).length >= 4);
  session.packets.filter(Buffer.isBuffer).forEach((packet) => decoder.add(packet));
  assert.equal(typeof read[0].data.sid, 'string');
  assert.deepEqual(read.slice(1).sort((a, b) => a.type - b.type), [
    { type: 2, nsp: namespace, data: ['echoed', 1] },
    { type: 3, nsp: namespace, data: [1], id: 5 },
    { type: 4, nsp: '/nowhere', data: { message: 'Invalid namespace' } },
  ]);
  session.close();
});
