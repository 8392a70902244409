// Unusual messages of official clients, browsers and proxies, which Node's Socket.IO server accepts.
import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import { Client, TRANSPORTS } from '../harness/client.js';
import { eventually, like, text } from '../harness/eventually.js';
import { Node, ROOT, binary } from '../harness/node.js';
import { start } from '../harness/process.js';
import { RawSession, bytes, openPolling, upgradeRequest } from '../harness/raw.js';
import { token } from '../harness/token.js';
import { ENGINE, world } from '../harness/world.js';

const require = createRequire(import.meta.url);
const clientOfProtocol3 = require('socket.io-client-2.5');

/** A parser that no engine supports: it writes packets as JSON objects, in text or binary messages. */
const foreign = (write) => {
  const { Decoder, ...parser } = require('socket.io-msgpack-parser');
  function Encoder() {}
  Encoder.prototype.encode = (packet) => [write(JSON.stringify(packet))];
  return { ...parser, Decoder, Encoder };
};
const FOREIGN = { text: foreign(String), binary: foreign(Buffer.from) };

const NAMED = 'https://app.example.com';
const w = await world({
  contracts: [join(ROOT, 'tests/js/fixtures/alone/clients.toml')],
  toml: `[server]\ncors_origins = ["${NAMED}", "null", "capacitor://localhost", "file://"]\n`,
  mode: 'memory',
});
const HALF = 'nice 👍'.slice(0, 6);
const HANDSHAKE = '/socket.io/?EIO=4&transport=polling';

afterEach(() => w.clear());

// These tests run on the native engine only: socketioxide closes connections that send such names.
for (const transport of ENGINE === 'native' ? Object.keys(TRANSPORTS) : []) {
  describe(`over ${transport}`, () => {
    test('an event may have any name', async () => {
      const client = await w.connect({ transport });
      for (const name of ['café', '👍', '7']) assert.deepEqual(await client.ask(name), { got: 'it' }, name);
      for (const name of ['say "hi"', 'back\\slash', 'tab\there', 'news/item', '$x', HALF]) {
        like(await client.ask(name, { n: 1 }), { success: false, error: { code: 'UNKNOWN_EVENT', message: text } }, name);
      }
      assert.ok(client.socket.connected);
    });

    test('a number names an event', async () => {
      const client = await w.connect({ transport });
      assert.deepEqual(await client.ask(7), { got: 'it' });
      like(await client.ask(8, 'x'), { success: false, error: { code: 'UNKNOWN_EVENT', message: text } });
      assert.ok(client.socket.connected);
    });
  });
}

test('a name in JSON escapes is the same name, as clients in Python send it', async () => {
  if (ENGINE !== 'native') return;
  const session = await RawSession.open(w.a);
  session.send('421["caf\\u00e9",{"n":1}]');
  assert.equal(await session.until('the ack', (packet) => packet.startsWith('431')), '431[{"got":"it"}]');
  session.send('422["\\ud83d\\udc4d"]');
  assert.equal(await session.until('the ack', (packet) => packet.startsWith('432')), '432[{"got":"it"}]');
  session.send('42[7]');
  session.send('423[7.0,null]');
  assert.equal(await session.until('the ack', (packet) => packet.startsWith('433')), '433[{"got":"it"}]');
  assert.equal(session.closed, undefined);
  session.close();
});

for (const transport of Object.keys(TRANSPORTS)) {
  test(`${transport}: half an emoji passes as it was sent, and is replaced where a string must be made`, async () => {
    const [ada, bob] = await Promise.all([w.connect({ transport }), w.connect({ transport })]);
    ada.send('pass', HALF, Buffer.from([1, 2]), { [HALF]: [HALF] });
    const passed = await bob.next();
    assert.deepEqual([passed[0], passed[1], passed[3]], ['passed', HALF, { [HALF]: [HALF] }]);
    assert.deepEqual([...passed[2]], [1, 2]);
    ada.send('pass', HALF);
    assert.deepEqual(await bob.next(), ['passed', HALF]);
    assert.deepEqual(await ada.ask('look', HALF), { text: 'nice \ufffd' });
    assert.deepEqual(await ada.ask('look', { text: `${HALF}👍` }), { text: 'nice \ufffd👍' });
    assert.ok(ada.socket.connected && bob.socket.connected);
  });
}

test('half an emoji in a publish passes as it was sent, and only the name of an event is a string that must be made', async () => {
  const client = await w.connect();
  // Half of a surrogate pair is sent as an escape, because JSON.stringify writes it so.
  assert.match(JSON.stringify(HALF), /\\ud83d/);
  await w.a.publish('clients', 'looked', { text: HALF });
  await w.a.publish('clients', 'filled', { text: HALF });
  await w.a.emit({ namespace: '/', event: HALF, args: [HALF] });
  assert.deepEqual(await client.drain(), [
    ['looked', { text: HALF }],
    ['filled', { text: HALF, more: true }],
    ['nice \ufffd', HALF],
  ]);
});

describe('subprotocols', () => {
  for (const transport of ['websocket', 'upgrade']) {
    test(`${transport}: the first that is offered is chosen`, async () => {
      const client = await w.connect({ transport, protocols: ['my-protocol-v1', 'other'] });
      assert.equal(client.socket.io.engine.transport.ws.protocol, 'my-protocol-v1');
    });
  }
});

describe('a token in a cookie', () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`${transport}: another cookie beside it may hold any bytes`, async () => {
      // The cookie is sent as a browser sends it: in UTF-8.
      const odd = Buffer.from('name=Jörg').toString('latin1');
      for (const cookie of [`${odd}; session=${token({ sub: 'ann' })}`, `session=${token({ sub: 'ann' })}; ${odd}`]) {
        const client = await w.connect({ transport, extraHeaders: { cookie } });
        assert.equal((await client.ask('echo')).user, 'ann');
      }
    });
  }
});

/** A request to the public listener with any headers. Returns the answer with its text. */
async function request(path, { method = 'GET', headers = {}, body } = {}) {
  return await new Promise((resolve, reject) => {
    const asked = http.request(w.a.url + path, { method, headers, agent: false }, (answer) => {
      let said = '';
      answer.setEncoding('utf8').on('data', (part) => (said += part));
      answer.on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text: said }));
    });
    asked.on('error', reject).end(body);
  });
}

describe('pages of browsers', () => {
  test('the same origin may connect, whichever of the two says the default port', async () => {
    for (const [host, origin, status] of [
      ['rt.example.com:443', 'https://rt.example.com', 200],
      ['rt.example.com', 'https://rt.example.com', 200],
      ['rt.example.com:8443', 'https://rt.example.com:8443', 200],
      ['rt.example.com:80', 'http://rt.example.com', 200],
      ['rt.example.com:8443', 'https://rt.example.com', 403],
      ['rt.example.com:443', 'http://rt.example.com', 403],
      ['rt.example.com', 'https://evil.example.com', 403],
    ]) {
      assert.equal((await request(HANDSHAKE, { headers: { host, origin } })).status, status, `${origin} at ${host}`);
    }
  });

  test('origins of apps, files and sandboxes connect where they are listed', async () => {
    for (const origin of [NAMED, 'null', 'capacitor://localhost', 'file://']) {
      const answer = await request(HANDSHAKE, { headers: { origin } });
      assert.deepEqual([answer.status, answer.headers['access-control-allow-origin']], [200, origin], origin);
      assert.equal(answer.headers['access-control-allow-credentials'], 'true');
    }
    for (const origin of ['https://evil.example.com', 'ionic://localhost', `${NAMED}:8443`]) {
      const answer = await request(HANDSHAKE, { headers: { origin } });
      assert.deepEqual([answer.status, answer.headers['access-control-allow-origin']], [403, undefined], origin);
    }
  });

  test('a page may send the headers that it asks for', async () => {
    const asked = 'authorization,content-type,x-client-version';
    const { status, headers } = await request(HANDSHAKE, {
      method: 'OPTIONS',
      headers: { origin: NAMED, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
    });
    assert.equal(status, 200);
    assert.equal(headers['access-control-allow-origin'], NAMED);
    assert.equal(headers['access-control-allow-headers'], asked);
  });

  test('no answer to a polling request may be kept by a cache', async () => {
    const path = new URL(await openPolling(w.a)).pathname + new URL(await openPolling(w.a)).search;
    for (const [what, answer, status] of [
      ['a handshake', await request(HANDSHAKE), 200],
      ['a body', await request(path, { method: 'POST', body: '421["echo"]' }), 200],
      ['a poll', await request(path), 200],
      ['an unknown session', await request(`${HANDSHAKE}&sid=unknown`), 400],
      ['a page that may not connect', await request(HANDSHAKE, { headers: { origin: 'https://evil.example.com' } }), 403],
      ['another version', await request('/socket.io/?EIO=3&transport=polling'), 400],
    ]) {
      assert.deepEqual([answer.status, answer.headers['cache-control']], [status, 'no-store'], what);
    }
  });
});

test('a request of HTTP/1.0 is not upgraded', async () => {
  const old = upgradeRequest('/socket.io/?EIO=4&transport=websocket').toString().replace('HTTP/1.1', 'HTTP/1.0');
  const { text: said, ended } = await bytes(w.a, old);
  assert.match(said, /^HTTP\/1\.[01] 400 /);
  assert.ok(ended);
});

describe('clients that cannot be served', () => {
  const tried = async (reason) => await w.a.metric('roomcast_incompatible_clients_total', { reason });
  const logged = (pattern) => w.a.process.lines.some(({ text: line }) => pattern.test(line));

  for (const transport of ['websocket', 'polling']) {
    test(`${transport}: socket.io-client 2 is refused, and the node says why`, async () => {
      const before = await tried('protocol');
      const client = clientOfProtocol3(w.a.url, { transports: TRANSPORTS[transport], reconnection: false, forceNew: true });
      const error = await new Promise((resolve) => client.on('connect_error', resolve));
      client.close();
      assert.match(String(error), /error/);
      assert.ok((await tried('protocol')) > before);
      await eventually('the log says so', () => logged(/older version of the protocol.*use socket\.io-client 3 or 4.*server\.allow_eio3/));
    });
  }

  // These tests run on the native engine only: socketioxide closes such connections without an answer.
  for (const transport of ENGINE === 'native' ? ['websocket', 'polling'] : []) {
    for (const [kind, parser] of Object.entries(FOREIGN)) {
      test(`${transport}: a client with a parser of its own, as ${kind}, is disconnected, and the node says why`, async () => {
        const before = await tried('parser');
        const client = w.open({ transport, parser });
        await eventually('it is counted', async () => (await tried('parser')) > before);
        assert.equal(client.socket.connected, false);
        await eventually('the log says so', () => logged(/unknown parser.*`parser`/));
      });
    }
  }

  test('the doctor finds them', async () => {
    const process = start(binary(), ['doctor', w.a.url, '--api', w.a.apiUrl, '--json', '--skip', 'patience', '--polls', '1']);
    await process.done;
    const said = JSON.parse(process.lines.filter(({ from }) => from === 'stdout').map(({ text: line }) => line).join('\n'));
    const found = said.findings.find(({ check }) => check === 'api.clients');
    assert.equal(found.level, 'warning');
    assert.match(found.remedy, /socket\.io-client 3 or 4/);
  });
});

describe('a client that was refused and goes away', () => {
  const contracts = ['embedded:chat'];
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`${transport}: gives its place back at once`, async () => {
      // The node permits one connection. If the node did not notice that the refused client is gone, it would free this
      // connection only after server.connect_timeout (45 s).
      const node = await Node.start({ contracts, toml: '[server]\nmax_connections = 1\n' });
      try {
        const refused = new Client(node, { transport, token: 'no token' });
        await assert.rejects(refused.connected(), /AUTHENTICATION_FAILED/);
        refused.close();
        const next = await eventually('the next client is let in', () => Client.connect(node, { transport, user: 'ann' }), 15_000);
        next.close();
      } finally {
        await node.stop();
      }
    });
  }
});
