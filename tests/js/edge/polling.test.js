// Engine.IO 4 with single requests, over long-polling and the upgrade from it: packets, payloads, refusals, and how
// each side learns of the end.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { byHand } from '../harness/by-hand.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { ENGINE } from '../harness/world.js';

const NATIVE = ENGINE === 'native';
const MAX_PAYLOAD = 20_000;
const node = await Node.start({
  contracts: ['embedded:chat'],
  env: {
    ROOMCAST_SERVER__MAX_PAYLOAD: `${MAX_PAYLOAD}B`,
    ROOMCAST_SERVER__PING_INTERVAL: '2s',
    ROOMCAST_SERVER__PING_TIMEOUT: '1s',
  },
});
const { path, get, post, session, fetchPacket, connected, websocket, comes, probed, terminateAll } = byHand(node);
after(() => node.stop());
afterEach(terminateAll);

test('a handshake says what Node says, and no answer may be kept by a cache', async () => {
  const { text, headers } = await get(`${path}polling`);
  const { sid, ...said } = JSON.parse(text.slice(1));
  assert.deepEqual(said, { upgrades: ['websocket'], pingInterval: 2_000, pingTimeout: 1_000, maxPayload: MAX_PAYLOAD });
  assert.ok(text.startsWith('0{') && sid.length >= 20);
  assert.equal(headers.get('cache-control'), 'no-store');
  assert.equal(headers.get('set-cookie'), null);
  const unknown = await get(`${path}polling&sid=nobody`);
  assert.deepEqual([unknown.status, unknown.text], [400, '{"code":1,"message":"Session ID unknown"}']);
  assert.equal(unknown.headers.get('cache-control'), 'no-store');
});

test('what is no handshake is refused', async () => {
  for (const query of ['transport=polling', 'EIO=abc&transport=polling', 'EIO=4', 'EIO=4&transport=abc']) {
    assert.equal((await get(`/socket.io/?${query}`)).status, 400, query);
  }
  for (const method of ['POST', 'PUT']) assert.equal((await get(`${path}polling`, { method })).status, 400, method);
  if (!NATIVE) return;
  assert.match((await get(`${path}polling&j=0`)).text, /JSONP polling is not supported/);
  assert.match((await get('/socket.io/?EIO=3&transport=polling')).text, /"code":5/);
});

test('packets of one body are taken in order, and come back in one payload', async () => {
  const made = await connected();
  const join = (room) => `42${room}["room:join",{"room":"r${room}"}]`;
  assert.equal((await post(made.url, [join(1), join(2), join(3)].join('\x1e'))).text, 'ok');
  const seen = [];
  while (!seen.join().includes('433[')) seen.push(...(await get(made.url)).text.split('\x1e'));
  const acks = seen.filter((packet) => packet.startsWith('43')).map((packet) => packet.slice(0, 3));
  assert.deepEqual(acks, ['431', '432', '433']);
});

test('a body is taken up to its bound, and a longer one is refused', async () => {
  const made = await connected();
  const body = (length) => `421["message",{"x":"${'y'.repeat(length - 23)}"}]`;
  assert.equal(body(MAX_PAYLOAD).length, MAX_PAYLOAD);
  assert.equal((await post(made.url, body(MAX_PAYLOAD))).status, 200);
  await fetchPacket(made, '431[');
  assert.equal((await post(made.url, body(MAX_PAYLOAD + 1))).status, 413);
});

test('a session ends that posts what is no packet', async () => {
  const made = await session();
  const answer = await post(made.url, 'abc').catch(() => ({ status: 400 }));
  if (NATIVE) assert.equal(answer.status, 400);
  await eventually('its id is unknown', async () => (await get(made.url)).status === 400);
});

if (NATIVE) {
  test('a second poll at a time ends the session, and the first is told', async () => {
    const made = await session();
    const first = get(made.url);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal((await get(`${made.url}&t=second`)).status, 400);
    assert.equal((await first).text, '1');
    assert.equal((await get(made.url)).status, 400);
  });

  test('a session ends whose poll was given up', async () => {
    const made = await session();
    const request = http.get(node.url + made.url);
    request.on('error', () => {});
    await new Promise((resolve) => setTimeout(resolve, 100));
    request.destroy();
    await eventually('its id is unknown', async () => {
      const answer = await Promise.race([get(made.url), new Promise((resolve) => setTimeout(resolve, 50, {}))]);
      return answer.status === 400;
    });
  });

  test('a client that closes its session has its poll answered with a NOOP', async () => {
    const made = await session();
    const waiting = get(made.url);
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.equal((await post(made.url, '1')).text, 'ok');
    assert.equal((await waiting).text, '6');
    assert.equal((await get(made.url)).status, 400);
  });

  test('the session stays on polling until the client says that it moves', async () => {
    const made = await connected();
    const upgrades = async () => await node.metric('roomcast_transport_upgrades_total');
    const websockets = async () => await node.metric('roomcast_transports', { transport: 'websocket' });
    const before = await upgrades();
    const waiting = get(made.url);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const socket = await probed(made);
    assert.equal((await waiting).text, '6', 'the poll that waits is let go');
    assert.equal((await get(made.url)).text, '6', 'and so is the next one');
    assert.deepEqual([await upgrades(), await websockets()], [before, 0], 'nothing is counted yet');
    // Packets that the server sends before the upgrade packet still go over polling.
    await post(made.url, '421["room:join",{"room":"a"}]');
    assert.ok((await fetchPacket(made, '431[')).startsWith('431['));
    assert.deepEqual(socket.got, ['3probe']);
    socket.send('5');
    socket.send('422["room:join",{"room":"b"}]');
    await comes(socket, '432[');
    assert.deepEqual([await upgrades(), await websockets()], [before + 1, 1]);
    assert.equal((await get(made.url)).status, 400, 'it polls no longer');
    const another = await websocket(made.socket);
    await eventually('a second WebSocket closes', () => another.gone);
    socket.send('423["room:join",{"room":"c"}]');
    await comes(socket, '433[');
  });

  test('what is queued when the client moves follows to its WebSocket, in order', async () => {
    const made = await connected('mover');
    const socket = await probed(made);
    assert.equal((await get(made.url)).text, '6');
    for (let n = 0; n < 20; n += 1) await node.emit({ namespace: '/', users: ['mover'], event: 'n', args: [n] });
    socket.send('5');
    await comes(socket, '42["n",19]');
    const numbers = socket.got.filter((packet) => packet.startsWith('42["n"')).map((packet) => JSON.parse(packet.slice(2))[1]);
    assert.deepEqual(numbers, [...Array(20).keys()]);
  });

  const failures = {
    'is closed after the handshake': async (made) => (await websocket(made.socket)).terminate(),
    'is closed after the probe': async (made) => (await probed(made)).terminate(),
    'says something else than the probe': async (made) => (await websocket(made.socket)).send('4hello'),
    'sends a frame that is too long': async (made) => (await websocket(made.socket)).send('x'.repeat(5_000)),
    'has no key': async (made) => assert.equal((await get(made.socket)).status, 400),
    'says nothing': async (made) => await websocket(made.socket),
  };
  for (const [how, attempt] of Object.entries(failures)) {
    test(`a session goes on by polling when its candidate ${how}`, async () => {
      const made = await connected();
      await attempt(made);
      await post(made.url, '421["room:join",{"room":"a"}]');
      assert.ok(await fetchPacket(made, '431['));
      assert.equal(await node.metric('roomcast_transports', { transport: 'websocket' }), 0);
    });
  }

  test('WebSocket pings of a client that never reads are kept in bounds, also after it has moved', async () => {
    const made = await session();
    const socket = await probed(made);
    await get(made.url);
    socket.send('5');
    socket._socket.pause();
    const resident = () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${node.process.child.pid}/status`, 'utf8'))[1]);
    const before = resident();
    const payload = Buffer.alloc(125, 'x');
    for (let n = 0; n < 200 && !socket.gone; n += 1) {
      for (let m = 0; m < 1_000; m += 1) socket.ping(payload, true, () => {});
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(resident() - before < 8_192, `${resident() - before} KiB more`);
  });
}
