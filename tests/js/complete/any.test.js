// The events that no table of a contract names, and notices: backends are told of events and connections, in order.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/any';
const backend = await Backend.start();
const fixtures = ['any', 'any-hook'].map((name) => join(ROOT, `tests/js/fixtures/${name}.toml`));
const w = await world({ contracts: fixtures, toml: backend.toml('backend') });
after(() => backend.stop());
afterEach(async () => {
  await w.clear();
  backend.answer = () => ({ ok: true });
  assert.deepEqual(backend.faults, []);
});

/** Connects to `node`, and enters the stage. */
async function member(node) {
  const client = await w.connect({ namespace }, node);
  assert.deepEqual(await client.next(), ['hello']);
  assert.equal((await client.ask('enter')).success, true);
  return client;
}

/** The events that have arrived at a client, without those of presence, which may come late. */
async function arrived(client, via) {
  return (await client.drain(via)).filter(([name, data]) => name !== 'came' || typeof data !== 'object');
}

/** The notices about one socket, as texts. */
function told(id) {
  const about = backend.requests.map(({ event }) => event).filter(({ data }) => data.socket.id === id);
  return about.map(({ type, subject }) => (subject === id ? type : `${type} ${subject}`));
}

test('an event that no table names is relayed under its own name, and its bytes pass through', async () => {
  const [ann, ben] = [await member(), await member(w.a)];
  const bytes = Buffer.from([0, 255]);
  assert.deepEqual(await ann.ask('draw', { x: 1.5 }, 'two', bytes), { name: 'draw' });
  assert.deepEqual(await ann.ask('*'), { name: '*' });
  assert.deepEqual(await ann.ask('toString', null), { name: 'toString' });
  assert.deepEqual(await arrived(ben, w.b), [['draw', { x: 1.5 }, 'two', bytes], ['*'], ['toString', null]]);
  assert.deepEqual(await arrived(ann), []);
});

test('no client can send an event that the node sends', async () => {
  const [ann, ben] = [await member(), await member()];
  for (const name of ['news', 'failed', 'hello', 'came', 'was/draw']) {
    assert.equal((await ann.ask(name, 1)).error.code, 'UNKNOWN_EVENT', name);
  }
  assert.deepEqual(await arrived(ben, w.b), []);
});

test('all events that no table names share one limit and one label', async () => {
  const ann = await member();
  const acks = await Promise.all(Array.from({ length: 30 }, (_, n) => ann.ask(`many${n}`, n)));
  const refused = acks.filter((ack) => ack.error?.code === 'RATE_LIMIT_EXCEEDED').length;
  assert.ok(refused >= 9 && refused <= 10, String(refused));
  assert.equal((await ann.ask('named', {})).success, true, 'a named event has no such limit');
  const { body } = await w.b.api('GET', '/metrics', undefined, { key: null });
  assert.match(body, /roomcast_events_received_total\{contract="any",event="\*",result="ok"\}/);
  assert.doesNotMatch(body, /many1/);
});

test('a backend decides about an event that no table names', async () => {
  const client = await w.connect({ namespace: '/any-hook' });
  backend.answer = ({ data }) => (data.event === 'bad' ? { error: { code: 'NO' } } : { ack: [data.event, data.payload] });
  assert.deepEqual(await client.ask('good', { n: 1 }), ['good', { n: 1 }]);
  assert.equal((await client.ask('bad')).error.code, 'NO');
});

test('a backend is told of a connection, of events and of the disconnect, in order and at least once', async () => {
  let failures = 2;
  const client = await member();
  const { id } = client;
  const fails = ({ type, data }) => type === 'io.roomcast.notify' && data.socket.id === id && failures-- > 0;
  backend.answer = (event) => (fails(event) ? { status: 503 } : {});
  for (let n = 0; n < 5; n += 1) assert.deepEqual(await client.ask(`step${n}`, { n }, 'more'), { name: `step${n}` });
  assert.equal((await client.ask('named', { n: 1.5 })).success, true);
  assert.equal((await client.ask('named', 'no object')).error.code, 'INVALID_PAYLOAD');
  client.socket.disconnect();
  await eventually('the backend is told of the disconnect', () => told(id).includes('io.roomcast.disconnect'));
  const steps = [0, 1, 2, 3, 4].map((n) => `io.roomcast.notify step${n}`);
  const order = ['io.roomcast.connected', ...steps, 'io.roomcast.notify named', 'io.roomcast.disconnect'];
  assert.deepEqual([...new Set(told(id))], order);
  assert.equal(told(id).length, order.length + 2, 'two attempts were repeated');
  const { data } = backend.of('notify').findLast((event) => event.data.event === 'step4');
  assert.deepEqual([data.payload, data.args], [{ n: 4 }, [{ n: 4 }, 'more']]);
});

test('an event that is too large for a notice is refused, and does nothing', async () => {
  const [ann, ben] = [await member(), await member()];
  const refused = await ann.ask('draw', 'x'.repeat(20_000));
  assert.equal(refused.error.code, 'TOO_LARGE');
  assert.match(refused.error.message, /at most 16384 bytes/);
  assert.deepEqual(await arrived(ben, w.b), []);
});
