// Sends more than a thousand messages that no correct client sends: each gets an error or ends the connection cleanly,
// and the node keeps working.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Chance, SEED } from '../harness/prng.js';
import { RawSession, bytes, frame, openPolling, upgradeRequest } from '../harness/raw.js';
import { world } from '../harness/world.js';

const MAX_PAYLOAD = 100_000;
const w = await world({ contracts: ['embedded:chat'], toml: `[server]\nmax_payload = ${MAX_PAYLOAD}\n`, mode: 'memory' });
const node = w.a;
const chance = new Chance();
let sent = 0;

const good = { from: 'mallory', to: 'nobody', content: 'c', type: 't' };
const EVENTS = ['room:join', 'room:leave', 'message', 'typing:start', 'typing:stop', 'presence:update'];
const cut = (text) => text.slice(0, chance.int(2, text.length - 1));

/** A name that the contract does not define: a plain name, a long name, or a name that JSON must escape. */
const strangeName = () => JSON.stringify(chance.pick(['x', 'y'.repeat(3000), 'é', `x${chance.text(chance.pick([3, 40]))}`]));

/** Text packets of a connected session, each with one mistake. */
const TEXTS = {
  'an Engine.IO type that does not exist': () => chance.pick('789abcxyz{[" ') + chance.text(chance.int(0, 20)),
  'an empty packet': () => '',
  'noise': () => `\u0001${chance.text(chance.int(1, 60))}`,
  'a Socket.IO type that does not exist': () => `4${chance.pick('789abc{[" ')}${chance.text(chance.int(0, 20))}`,
  'an event without a body': () => chance.pick(['42', '421', '42/', '42/x', '42,']),
  'a truncated event': () => `42${cut(JSON.stringify(['message', good]))}`,
  'an event that is no array': () => `42${chance.pick(['{}', '5', '"message"', 'null', 'true', '[]', '[5]', '[null]', '[{}]', '[["message"]]'])}`,
  'JSON with something behind': () => `42["message",{}]${chance.pick(['x', ']', '}', '[]', ',1'])}`,
  'an unknown event': () => `42[${strangeName()}${chance.pick(['', ',1', ',{}'])}]`,
  'a payload of any shape': () => `42[${JSON.stringify(chance.pick(EVENTS))},${JSON.stringify([chance.json()])}]`,
  'a deep payload': () => {
    const depth = chance.pick([200, 2_000, 20_000]);
    return `42["message",${'['.repeat(depth)}${']'.repeat(depth)}]`;
  },
  'numbers that are none': () => `42["message",${chance.pick(['1e999', '-', '01', '+1', 'NaN', '0x10', '.5'])}]`,
  'bad escapes': () => `42["room:join",{"room":"${chance.pick(['\\x41', '\\u12', '\\'])}"}]`,
  'a binary event without its binary': () => `451-["message",{"_placeholder":true,"num":0}]`,
  'a binary event with more attachments than anybody has': () => `45${chance.pick(['99999999', '4294967296', '18446744073709551616'])}-["message"]`,
  'a binary event without a count': () => `45["message",{"_placeholder":true,"num":0}]`,
  'an event for a namespace that is not connected': () => `42/${chance.pick(['nowhere', 'jobs', 'a/b'])},["message",{}]`,
  'a namespace that does not exist': () => `40/${chance.pick(['nowhere', 'jobs', 'x'.repeat(500)])},{}`,
  'an ack number that is none': () => `42${'9'.repeat(chance.int(20, 60))}["message",{}]`,
  'an oversized event': () => `42["message",{"x":"${'y'.repeat(MAX_PAYLOAD)}"}]`,
};

/** socketioxide drops packets for namespaces that are not connected (Node's server would end the connection). */
const DROPPED = new Set(['an event for a namespace that is not connected', 'an event without a body']);

/** The possible answers: an error event, an error in an acknowledgement, a refused namespace, or the end. */
const answers = (packet) => /^42\["(error|room:error)",/.test(packet) || /^43\d*\[\{"code"/.test(packet) || packet.startsWith('44');

/**
 * Sends a packet. The node must answer with an error or end the connection. Only the packets in `DROPPED` may get no
 * answer.
 */
async function offer(session, packet, what) {
  sent += 1;
  session.send(packet);
  // A packet with a binary header is followed by a packet that is not binary.
  if (what.includes('binary')) session.send('42["ping"]');
  const shown = `${what}: ${JSON.stringify(String(packet).slice(0, 120))} (seed ${SEED}) is answered`;
  if (!DROPPED.has(what)) return await session.until(shown, answers);
  session.send('42["ping"]');
  return await session.until(shown, (said) => answers(said) || said.startsWith('42["pong"'));
}

const EACH = 40;
for (const [what, make] of Object.entries(TEXTS)) {
  test(`${EACH} × ${what}`, async () => {
    const count = /oversized/.test(what) ? 5 : EACH;
    let session = await RawSession.open(node);
    for (let at = 0; at < count; at += 1) {
      const answer = await offer(session, make(), what);
      if (answer === undefined) {
        session.close();
        session = await RawSession.open(node);
      }
    }
    session.close();
    assert.ok(node.alive);
  });
}

test('binary frames that nobody announced end the connection, or are errors', async () => {
  for (let at = 0; at < EACH; at += 1) {
    const session = await RawSession.open(node);
    await offer(session, chance.bytes(chance.int(0, 100)), 'a binary frame');
    session.close();
  }
});

const FRAMES = {
  'not masked': () => frame({ payload: Buffer.from('42["ping"]'), masked: false }),
  'a reserved opcode': () => frame({ opcode: chance.pick([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]) }),
  'reserved bits': () => frame({ reserved: chance.int(1, 7), payload: Buffer.from('2') }),
  'a control frame that is too long': () => frame({ opcode: 9, payload: Buffer.alloc(126) }),
  'a control frame in pieces': () => frame({ opcode: 9, fin: false, payload: Buffer.from('x') }),
  'a continuation of nothing': () => frame({ opcode: 0, payload: Buffer.from('x') }),
  'text that is not UTF-8': () => frame({ payload: Buffer.from([0x34, 0x32, 0xff, 0xfe, 0x80]) }),
  'a length beyond every limit': () => frame({ length: 2 ** 40 }),
  'a close code that is none': () => frame({ opcode: 8, payload: Buffer.from([0, chance.int(0, 255)]) }),
  'noise': () => Buffer.concat([frame({ reserved: 7 }), chance.bytes(chance.int(1, 200))]),
};
for (const [what, make] of Object.entries(FRAMES)) {
  test(`10 × a WebSocket frame with ${what} ends the connection`, async () => {
    const path = '/socket.io/?EIO=4&transport=websocket';
    for (let at = 0; at < 10; at += 1) {
      sent += 1;
      const { ended, text } = await bytes(node, Buffer.concat([upgradeRequest(path), make()]));
      assert.match(text, /^HTTP\/1\.1 101/);
      assert.ok(ended, `still open after ${what} (seed ${SEED})`);
    }
  });
}

test('handshakes that are wrong are refused with 4xx', async () => {
  const wrong = [
    '?transport=polling',
    '?EIO=3&transport=polling',
    '?EIO=99&transport=polling',
    '?EIO=4',
    '?EIO=4&transport=carrier-pigeon',
    '?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAAAAAAAA',
    '?EIO=4&transport=polling&sid=../../etc/passwd',
    '?EIO=4&transport=polling&sid=%00%ff',
    `?EIO=4&transport=polling&sid=${'a'.repeat(5000)}`,
    '',
  ];
  for (const query of wrong) {
    for (const method of ['GET', 'POST']) {
      sent += 1;
      const { status } = await node.get(`/socket.io/${query}`, { method });
      assert.ok(status >= 400 && status < 500, `${method} ${query}: ${status}`);
    }
  }
  for (const method of ['PUT', 'DELETE', 'PATCH']) {
    sent += 1;
    const { status } = await node.get('/socket.io/?EIO=4&transport=polling', { method });
    assert.ok(status >= 400 && status < 500, `${method}: ${status}`);
  }
});

test('bytes that are no HTTP are refused or ended', async () => {
  const lines = [
    () => chance.bytes(chance.int(5, 300)),
    () => Buffer.from(`GET /${chance.text(10)} HTTP/1.1\r\n\r\n`),
    () => Buffer.from('GET / HTTP/9.9\r\nHost: x\r\n\r\n'),
    () => Buffer.from('POST /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n'),
    () => Buffer.from('POST /socket.io/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n'),
    () => Buffer.from('POST /socket.io/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n'),
    () => Buffer.from(`GET / HTTP/1.1\r\nHost: x\r\nX: ${'y'.repeat(1_000_000)}\r\n\r\n`),
    () => Buffer.from(`GET /${'z'.repeat(200_000)} HTTP/1.1\r\nHost: x\r\n\r\n`),
  ];
  for (let at = 0; at < 80; at += 1) {
    sent += 1;
    const { ended, text } = await bytes(node, lines[at % lines.length](), { half: true });
    const status = Number(/^HTTP\/1\.[01] (\d+)/.exec(text)?.[1] ?? 0);
    assert.ok(ended && (status === 0 || (status >= 400 && status < 500)), `${at}: ${ended} ${text.slice(0, 80)}`);
  }
});

test('a truncated request is ended in time', async () => {
  sent += 1;
  const { ended } = await bytes(node, 'GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHo', { half: true });
  assert.ok(ended);
});

const BODIES = {
  'noise': () => chance.bytes(chance.int(1, 200)),
  'an Engine.IO type that does not exist': () => `9${chance.text(5)}`,
  'nothing between separators': () => '\x1e\x1e\x1e',
  'a packet and noise': () => `42["ping"]\x1e${chance.pick('789')}`,
  'base64 that is none': () => 'b****',
  'no JSON behind a good type': () => `42${cut(JSON.stringify(['message', good]))}`,
  'too much': () => `42["message","${'x'.repeat(MAX_PAYLOAD)}"]`,
};
for (const [what, make] of Object.entries(BODIES)) {
  test(`10 × a polling body of ${what} is refused, or its session ends or hears of it`, async () => {
    for (let at = 0; at < 10; at += 1) {
      sent += 1;
      const url = await openPolling(node);
      const body = make();
      const answer = await fetch(url, { method: 'POST', body });
      await answer.text();
      assert.ok(answer.status < 500, String(answer.status));
      if (answer.status >= 400) continue;
      // The node accepts the request, and the next poll reports the error or the end of the session.
      const poll = await fetch(url, { signal: AbortSignal.timeout(5_000) });
      const packets = (await poll.text()).split('\x1e');
      const told = poll.status >= 400 || packets.some((packet) => answers(packet) || packet === '1' || packet.startsWith('41'));
      assert.ok(told, `${JSON.stringify(String(body).slice(0, 80))}: ${poll.status} ${packets}`);
    }
  });
}

test('requests to the API that make no sense are answered by 4xx with an error', async () => {
  const depth = 5_000;
  const makes = [
    () => cut(JSON.stringify({ contract: 'chat', event: 'message', data: good })),
    () => JSON.stringify(chance.json()),
    () => JSON.stringify({ contract: chance.json(1), event: chance.json(1), data: chance.json() }),
    () => JSON.stringify({ contract: 'chat', event: 'message', data: chance.json(1) }),
    () => JSON.stringify({ contract: 'chat', event: 'message', data: { ...good, room: `\u0000${chance.text(9)}` } }),
    () => `{"contract":"chat","event":"message","data":${'['.repeat(depth)}${']'.repeat(depth)}}`,
    () => chance.bytes(chance.int(1, 100)),
  ];
  for (let at = 0; at < 140; at += 1) {
    sent += 1;
    const path = chance.pick(['/api/v1/events', '/api/v1/events', '/api/v1/emit', '/api/v1/owners']);
    const method = path.endsWith('owners') ? 'PUT' : 'POST';
    const body = makes[at % makes.length]();
    const reply = await node.api(method, path, body, { headers: { 'content-type': 'application/json' } });
    const shown = `${path} ${String(body).slice(0, 100)}: ${reply.status} ${JSON.stringify(reply.body)}`;
    // A batch may be empty or contain refusals, which are reported one by one.
    if (reply.status === 202) assert.ok(reply.body.results?.every(({ accepted }) => !accepted), shown);
    else {
      assert.ok(reply.status >= 400 && reply.status < 500, shown);
      assert.ok(reply.body.error?.code && reply.body.error?.message, shown);
    }
  }
});

test('afterwards the node lives, its counters tell, and nobody is left behind', async () => {
  assert.ok(sent >= 1_000, `only ${sent} were sent`);
  assert.ok(node.alive);
  assert.equal((await node.get('/live')).status, 200);
  assert.equal((await node.get('/ready')).status, 200);
  const refused = async (result) => await node.metric('roomcast_events_received_total', { result });
  for (const [code, least] of Object.entries({ INVALID_PAYLOAD: 30, UNKNOWN_EVENT: 10, TOO_LARGE: 30 })) {
    assert.ok((await refused(code)) >= least, code);
  }
  await eventually('every session is gone', async () => (await node.metric('roomcast_connections')) === 0, 60_000);
  const [opened, closed] = [
    await node.metric('roomcast_connections_opened_total'),
    await node.metric('roomcast_connections_closed_total'),
  ];
  assert.equal(opened, closed);
  assert.ok((await node.metric('roomcast_connections_closed_total', { reason: 'parse error' })) >= 300);
  const [alice, bob] = [await w.connect({ user: 'alice' }), await w.connect({ user: 'bob', transport: 'polling' })];
  for (const client of [alice, bob]) await client.ask('room:join', { room: 'r' });
  assert.equal((await alice.ask('message', { from: 'alice', room: 'r', content: 'c', type: 't' })).success, true);
  const log = node.process.lines.map(({ text }) => text).join('\n');
  assert.doesNotMatch(log, /panicked/);
});
