// The node closes a session while its client upgrades. The client must learn of the end whatever it does next: by its
// next poll, or by the WebSocket if it upgrades. Once the probe is answered, the official client pauses its polling. If
// the WebSocket closes before the last poll is answered, that client never polls again, so the node may not close the
// WebSocket then.
import assert from 'node:assert/strict';
import { after, afterEach, test } from 'node:test';
import { byHand } from '../harness/by-hand.js';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node } from '../harness/node.js';

const node = await Node.start({ contracts: ['embedded:chat'] });
const { get, post, connected, websocket, comes, probed, terminateAll } = byHand(node);
after(() => node.stop());
afterEach(terminateAll);

const emit = async (id, n) => await node.emit({ namespace: '/', sockets: [id], event: 'n', args: [n] });
const moves = async () => await node.metric('roomcast_transport_upgrades_total');
const gone = async (socket) => await eventually('the WebSocket closes', () => socket.gone);

/** Makes the node close the connection, and waits until the client is in no namespace. */
async function close({ id }) {
  const { status } = await node.api('POST', '/api/v1/disconnect', { namespace: '/', sockets: [id], close: true });
  assert.equal(status, 202);
  await eventually('the session ends', async () => (await node.metric('roomcast_connections', { nsp: '/' })) === 0);
}

/** Polls until the close packet arrives. Returns the packets before it. */
async function fetchClose({ url }) {
  const seen = [];
  while (!seen.includes('1')) {
    const { status, text } = await get(url);
    assert.equal(status, 200, text);
    seen.push(...text.split('\x1e'));
  }
  return seen.filter((packet) => packet !== '6' && packet !== '1');
}

test('the session ends before the probe: a poll gets the close packet, and the probe is not answered', async () => {
  const made = await connected();
  const socket = await websocket(made.socket);
  const waiting = fetchClose(made);
  await close(made);
  await waiting;
  socket.send('2probe');
  await gone(socket);
  assert.deepEqual(socket.got, []);
});

test('after the probe, a client that polls gets what is queued and the close packet', async () => {
  const made = await connected();
  const socket = await probed(made);
  const waiting = fetchClose(made);
  await emit(made.id, 1);
  await close(made);
  assert.deepEqual(await waiting, ['42["n",1]']);
  assert.equal(socket.gone, undefined, 'the client decides about its WebSocket');
  const before = await moves();
  socket.send('5');
  await gone(socket);
  assert.deepEqual([socket.got, await moves()], [['3probe'], before]);
});

test('after the probe, a client that has paused its polling gets what is queued on the WebSocket, and a close frame', async () => {
  const made = await connected();
  const socket = await probed(made);
  assert.equal((await get(made.url)).text, '6', 'the probe lets a poll go');
  for (const n of [1, 2]) await emit(made.id, n);
  const before = await moves();
  await close(made);
  assert.equal(socket.gone, undefined);
  let code;
  socket.on('close', (with_) => (code = with_));
  socket.send('5');
  await gone(socket);
  assert.equal(code, 1005, 'a close frame without a code');
  assert.deepEqual(socket.got, ['3probe', '42["n",1]', '42["n",2]', '1']);
  assert.equal(await moves(), before, 'a session that has ended is not counted as upgraded');
});

test('after the probe, a client that has paused its polling for longer than the node waits is closed on the WebSocket', async () => {
  const made = await connected();
  const socket = await probed(made);
  await close(made);
  await eventually('the connection is not counted', async () => (await node.metric('roomcast_transports', { transport: 'polling' })) === 0);
  assert.equal(socket.gone, undefined);
  socket.send('5');
  await gone(socket);
});

test('after the move, the WebSocket gets a close frame', async () => {
  const made = await connected();
  const socket = await probed(made);
  socket.send('5');
  socket.send('421["room:join",{"room":"a"}]');
  await comes(socket, '431[');
  await close(made);
  await gone(socket);
});

test('a session that its client ends while it upgrades leaves a WebSocket that closes when the client moves', async () => {
  const made = await connected();
  const socket = await probed(made);
  assert.equal((await post(made.url, '1')).text, 'ok');
  assert.equal((await get(made.url)).status, 400);
  assert.equal(socket.gone, undefined);
  socket.send('5');
  await gone(socket);
});

test('the official client whose last poll is answered late learns that its session has ended', async (t) => {
  const client = new Client(node, { transport: 'upgrade', user: 'ada' });
  t.after(() => client.close());
  const { engine } = client.socket.io;
  const { transport } = engine;
  const [probe, onData, held] = [engine._probe, transport.onData, []];
  let holds = false;
  let upgrade;
  engine._probe = (name) => (upgrade = () => probe.call(engine, name));
  transport.onData = (data) => (holds ? held.push(data) : onData.call(transport, data));
  await client.connected();
  const tried = new Promise((resolve) => engine.once('upgrading', resolve));
  engine.once('upgrading', () => (holds = true));
  upgrade();
  const candidate = await tried;
  await eventually('the last poll is answered', () => held.length === 1);
  assert.deepEqual(held, ['6']);
  await close(client);
  assert.equal(candidate.readyState, 'open');
  onData.call(transport, held[0]);
  await client.ended();
  assert.equal(client.disconnected, 'transport close');
});
