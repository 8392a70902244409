// Order, binary attachments and acknowledgements: promises of the protocol for every contract.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { PARSER, TRANSPORTS } from '../harness/client.js';
import { eventually, like, text, timestamp } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { ENGINE, world } from '../harness/world.js';

const EVENTS = 5000;
const w = await world({ contracts: ['embedded:chat', join(ROOT, 'tests/js/fixtures/mirror.toml')] });
const far = w.nodes.at(0);

afterEach(() => w.clear());

async function chatter(user, room, options = {}, node = w.b) {
  const client = await w.connect({ user, ...options }, node);
  await client.ask('room:join', { room });
  await client.next();
  return client;
}

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    test(`${EVENTS} events of one client arrive in their order, on every node, none lost`, async () => {
      const alice = await chatter('alice', 'order', { transport });
      const [near, remote] = [await chatter('bob', 'order'), await chatter('carol', 'order', {}, far)];
      for (let at = 0; at < EVENTS; at += 1) {
        alice.send('message', { from: 'alice', room: 'order', type: 'n', content: at });
        // A client's write queue is limited, so the sender of a burst waits for an acknowledgement now and then.
        if (at % 200 === 199) await alice.ask('ping');
      }
      for (const client of [near, remote]) {
        const seen = () => client.inbox.length;
        await eventually(`all arrive, ${seen()}`, () => seen() >= EVENTS, 60_000);
        const numbers = client.inbox.map(([, { content }]) => content);
        const wrong = numbers.findIndex((number, at) => number !== at);
        assert.equal(wrong, -1, `at ${wrong}: ${numbers.slice(wrong, wrong + 5)}`);
        assert.equal(numbers.length, EVENTS);
      }
    });

    test('binary inside a payload arrives byte for byte, filled in beside it', async () => {
      const alice = await chatter('alice', 'bytes', { transport });
      const bob = await chatter('bob', 'bytes', { transport }, far);
      const [small, empty, large] = [Buffer.from([0, 1, 2, 255]), Buffer.alloc(0), randomBytes(200_000)];
      const content = { pictures: [small, { deep: empty }, large], text: 'ü' };
      const ack = await alice.ask('message', { from: 'alice', room: 'bytes', type: 'b', content });
      like(ack, { success: true, id: text, timestamp });
      const [event, data] = await bob.next();
      assert.equal(event, 'message');
      assert.equal(data.id, ack.id);
      assert.equal(data.content.text, 'ü');
      for (const [got, sent] of [
        [data.content.pictures[0], small],
        [data.content.pictures[1].deep, empty],
        [data.content.pictures[2], large],
      ]) {
        assert.ok(Buffer.isBuffer(got) || got instanceof Uint8Array);
        assert.ok(Buffer.from(got).equals(sent));
      }
    });

    test('binary of a client that was told to send it as text arrives, too', async () => {
      const alice = await w.connect({ namespace: '/mirror', transport, forceBase64: true });
      // socketioxide accepts base64 text only in polling bodies, and closes other sessions.
      if (ENGINE !== 'native' && transport !== 'polling') return await assert.rejects(alice.ask('echo', Buffer.from([0, 255])));
      for (const sent of [Buffer.alloc(0), Buffer.from([0, 255]), randomBytes(50_000)]) {
        assert.ok(Buffer.from(await alice.ask('echo', sent)).equals(sent));
      }
    });

    test('arguments of any number and kind come back unchanged: as an event, as an ack, to a room', async () => {
      const alice = await w.connect({ namespace: '/mirror', transport });
      const bob = await w.connect({ namespace: '/mirror', transport }, far);
      for (const client of [alice, bob]) await client.ask('enter', '1');
      const blob = randomBytes(70_000);
      const lists = [
        [],
        [null],
        // socket.io-msgpack-parser writes integers beyond 2^64 as other numbers.
        [1, 'two', { three: [3.25, -0.5, PARSER === 'msgpack' ? 2 ** 60 : 1e21] }, true, null],
        ['\u0000\u2028\ud83d\ude00"\\'],
        [blob, { b: blob, n: [Buffer.from('x')] }, 'last'],
        [{ _placeholder: false, num: 0 }],
      ];
      for (const args of lists) {
        const ack = await new Promise((resolve) => alice.socket.emit('echo', ...args, (...answer) => resolve(answer)));
        assert.deepEqual(ack, args);
        assert.deepEqual(await alice.next(), ['echoed', ...args]);
        alice.send('tell', '1', ...args);
        assert.deepEqual(await bob.next(), ['told', '1', ...args]);
        assert.deepEqual(await alice.next(), ['told', '1', ...args]);
      }
    });
  });
}

test('one connection, several namespaces', async () => {
  const alice = await chatter('alice', 'both');
  const mirror = alice.socket.io.socket('/mirror');
  await eventually('the second namespace is connected', () => mirror.connected);
  assert.deepEqual(await mirror.timeout(5_000).emitWithAck('echo', 7), 7);
  mirror.disconnect();
  assert.equal((await alice.ask('ping')).success, true);
  assert.ok(alice.socket.connected);
});

test('a namespace that does not exist is refused', async () => {
  await assert.rejects(w.connect({ namespace: '/nowhere', user: 'alice' }), /Invalid namespace/);
});
