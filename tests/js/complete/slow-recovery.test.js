// Which events a client that was too slow gets when it is recovered, for every policy. Only native sessions can be
// recovered.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { comeBack, cut, had, numbers, range } from '../harness/returning.js';
import { world } from '../harness/world.js';

const namespace = '/slow-back';
const w = await world({
  contracts: [join(ROOT, 'tests/js/fixtures/alone/slow-back.toml')],
  env: {
    ROOMCAST_SERVER__QUEUE_BYTES: '1MB',
    ROOMCAST_REDIS__RECEIVE_BUFFER: '65536',
    // A busy machine may need more than 20 s to publish the events of a test. Only the contract's policy may end the
    // connection of a client that does not read, so the times for pings and writes are longer than any test.
    ROOMCAST_SERVER__PING_INTERVAL: '5m',
    ROOMCAST_SERVER__PING_TIMEOUT: '5m',
  },
});
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
// `MOST` events with this filling exceed the kernel's buffers for one connection.
const FILLING = 'f'.repeat(200_000);
const MOST = 200;
let logs = 0;

afterEach(() => w.clear());

const dropped = async (reason) => await last.metric('roomcast_deliveries_dropped_total', { nsp: namespace, reason });
const sessions = async () => await last.metric('roomcast_connections', { nsp: namespace });

/** A client that has received the first event of a room, and then stops reading. */
async function stalled(name) {
  const log = `l${(logs += 1)}`;
  const client = await w.connect({ namespace }, last);
  assert.equal((await client.ask('follow', log)).success, true);
  await first.publish('slow-back', name, { log, n: 1, filling: '' });
  await had(client, 1, name);
  client.socket.io.engine.transport.ws._socket.pause();
  return { client, log };
}

/** Publishes until the condition is true, and a few more events. Returns the number of the last one. */
async function publish(name, log, from, enough) {
  for (let n = from; n < MOST; n += 1) {
    await first.publish('slow-back', name, { log, n, filling: FILLING });
    if (n % 5 === 0 && (await enough())) return n;
  }
  assert.fail('the queue has no bound');
}

async function more(name, log, from, count) {
  for (const n of range(from, from + count - 1)) await first.publish('slow-back', name, { log, n, filling: '' });
  return from + count - 1;
}

test('who was disconnected for being slow gets everything when it is back', async () => {
  const { client, log } = await stalled('fatal');
  const before = await sessions();
  const ended = async () => (await sessions()) < before;
  let n = await publish('fatal', log, 2, ended);
  n = await more('fatal', log, n + 1, 3);
  client.disconnected = undefined;
  client.socket.io.engine.transport.ws._socket.resume();
  await client.ended();
  assert.equal(await comeBack(client), true);
  n = await more('fatal', log, n + 1, 1);
  assert.deepEqual(await had(client, n, 'fatal'), range(1, n));
});

for (const [name, reason] of [
  ['oldest', 'slow_replaced'],
  ['latest', 'slow_replaced'],
  ['drop', 'queue_full'],
]) {
  test(`${name}: who leaves before it has read gets everything: what it was not shown was not left out yet`, async () => {
    const { client, log } = await stalled(name);
    const before = await dropped(reason);
    let n = await publish(name, log, 2, async () => (await dropped(reason)) - before > 70);
    const had1 = numbers(client.inbox, name);
    assert.deepEqual(had1, [1]);
    const { ws } = client.socket.io.engine.transport;
    await cut(client);
    ws.terminate();
    assert.equal(await comeBack(client), true);
    n = await more(name, log, n + 1, 1);
    assert.deepEqual(await had(client, n, name), range(1, n));
  });
}

for (const name of ['oldest', 'latest']) {
  test(`${name}: what gave way to newer events is not owed to who was shown those`, async () => {
    const { client, log } = await stalled(name);
    const before = await dropped('slow_replaced');
    let n = await publish(name, log, 2, async () => (await dropped('slow_replaced')) - before > 5);
    client.socket.io.engine.transport.ws._socket.resume();
    n = await more(name, log, n + 1, 1);
    await eventually('the last has come', () => numbers(client.inbox, name).at(-1) === n);
    const shown = numbers(client.inbox, name);
    // Events that were in flight from the other node when the client began to read may have been dropped, too.
    const left = (await dropped('slow_replaced')) - before;
    assert.ok(left > 5, `${left}`);
    assert.equal(shown.length, n - left, `${shown.length} of ${n}, ${left} left out`);
    await cut(client);
    n = await more(name, log, n + 1, 2);
    assert.equal(await comeBack(client), true);
    await eventually('the last has come', () => numbers(client.inbox, name).at(-1) === n);
    assert.deepEqual(numbers(client.inbox, name), [...shown, n - 1, n]);
  });
}

test('drop: what did not fit is owed, and comes when the client is back', async () => {
  const { client, log } = await stalled('drop');
  const before = await dropped('queue_full');
  let n = await publish('drop', log, 2, async () => (await dropped('queue_full')) - before > 5);
  client.socket.io.engine.transport.ws._socket.resume();
  await eventually('what waited has come', async () => {
    n = await more('drop', log, n + 1, 1);
    return numbers(client.inbox, 'drop').at(-1) === n;
  });
  assert.ok(numbers(client.inbox, 'drop').length < n);
  await cut(client);
  assert.equal(await comeBack(client), true);
  const all = await had(client, n, 'drop');
  assert.deepEqual(all.toSorted((a, b) => a - b), range(1, n));
});
