// Events and acknowledgements with several arguments, or with none: from contracts, from hooks and by HTTP.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/arguments';
const backend = await Backend.start();
const w = await world({ contracts: [join(ROOT, 'tests/js/fixtures/arguments.toml')], toml: backend.toml('backend') });
after(() => backend.stop());
afterEach(() => w.clear());
let boards = 0;

/** Connects to `node`, reads the greeting, and opens the board. */
async function member(board, node) {
  const client = await w.connect({ namespace }, node);
  assert.deepEqual(await client.next(), ['hello', client.id, null, 1]);
  assert.deepEqual(await emitWithCallback(client, 'open', board), [null, { room: `board:${board}` }]);
  return client;
}

/** Emits, and returns all arguments of the acknowledgement. */
async function emitWithCallback(client, ...event) {
  return await new Promise((resolve) => client.socket.emit(...event, (...args) => resolve(args)));
}

test('relays, replies and acknowledgements list their arguments', async () => {
  const board = `b${(boards += 1)}`;
  const ann = await member(board);
  const ben = await member(board, w.a);
  assert.deepEqual(await emitWithCallback(ann, 'draw', board, [0, 1.5], { x: 2 }), []);
  assert.deepEqual(await ann.drain(), [['done'], ['again', { x: 2 }]]);
  const drawn = ['drawn', [0, 1.5], { x: 2 }, null, `by ${ann.id}`];
  assert.deepEqual(await ben.drain(w.b), [drawn]);
  const late = await w.connect({ namespace }, w.a);
  await late.ask('open', board);
  assert.deepEqual((await late.drain()).slice(1), [drawn], 'the history keeps all arguments');
});

test('an error reply lists its arguments', async () => {
  const client = await member(`b${(boards += 1)}`);
  client.send('draw');
  assert.deepEqual(await client.next(), ['not-drawn', 'INVALID_PAYLOAD', null]);
});

test('a placeholder brings its binary attachment with it, in events and acknowledgements', async () => {
  const board = `b${(boards += 1)}`;
  const [ann, ben] = [await member(board), await member(board, w.a)];
  const bytes = Buffer.from([1, 2, 255]);
  assert.deepEqual(await emitWithCallback(ann, 'file', board, 'a.bin', bytes), [bytes, 'a.bin']);
  assert.deepEqual(await ben.next(), ['file', 'a.bin', bytes]);
});

test('a backend publishes and answers with several arguments', async () => {
  const board = `b${(boards += 1)}`;
  const [ann, ben] = [await member(board), await member(board, w.a)];
  const publish = async (more) => await w.a.api('POST', '/api/v1/events', { contract: 'arguments', event: 'said', ...more });
  assert.equal((await publish({ args: [{ board, text: 'x' }, 2, [3]] })).status, 202);
  assert.deepEqual(await ben.next(), ['said', { board, text: 'x', n: 1 }, 2, [3]]);
  assert.deepEqual(await ann.next(), ['said', { board, text: 'x', n: 1 }, 2, [3]]);
  const both = await publish({ data: { board }, args: [{ board }] });
  assert.deepEqual([both.status, both.body.error.details], [422, [{ at: 'args', problem: 'must not stand beside data' }]]);

  const id = `arguments-${board}`;
  assert.equal((await publish({ args: [{ board }, 1], id })).body.duplicate, false);
  assert.equal((await publish({ args: [{ board }, 1], id })).body.duplicate, true);
  assert.equal((await publish({ args: [{ board }, 2], id })).status, 422, 'the second argument counts');
  assert.deepEqual(await ben.drain(w.b), [['said', { board, n: 1 }, 1]]);
  await ann.drain();

  backend.answer = () => ({
    ack_args: [null, 'ok'],
    reply: [{ event: 'told', args: [1, 2] }],
    publish: [{ event: 'said', args: [{ board }, 'from the hook'] }],
  });
  assert.deepEqual(await emitWithCallback(ann, 'ask', { board, q: 1 }), [null, 'ok']);
  const got = [['said', { board, q: 1, n: 1 }, 'second'], ['said', { board, n: 1 }, 'from the hook']];
  assert.deepEqual(await ben.drain(w.b), got);
  assert.deepEqual((await ann.drain()).filter(([event]) => event === 'told'), [['told', 1, 2]]);
});
