// Clients of Socket.IO 2 (Engine.IO 3) beside current clients: the same rooms, contracts, acks and limits, where
// `server.allow_eio3` permits them. `edge/clients` tests how they are refused elsewhere.
import assert from 'node:assert/strict';
import http from 'node:http';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { Server } from 'socket.io';
import WebSocket from 'ws';
import { TRANSPORTS } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { OLD_CLIENTS, OldClient } from '../harness/old-client.js';
import { token } from '../harness/token.js';
import { world } from '../harness/world.js';

const fixture = (name) => join(ROOT, `tests/js/fixtures/${name}.toml`);
const ALLOWED = '[server]\nallow_eio3 = true\n';
const w = await world({ contracts: [fixture('old-clients'), fixture('alone/old-root')], toml: ALLOWED });
const far = w.nodes.at(0);
const namespace = '/private';
const BYTES = Buffer.from([0, 1, 0xff]);
const ARGS = [1, { deep: [BYTES, 'é🙂'] }, Buffer.alloc(0)];
const BACK = { reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
const others = [];
let clients = [];

afterEach(() => {
  clients.forEach((client) => client.close());
  clients = [];
  w.clear();
});
after(async () => await Promise.all(others.map((node) => node.stop())));

/** Connects an old client. `user` signs a token for the query. */
async function old({ user, node = w.b, ...options } = {}) {
  const client = opened({ user, node, ...options });
  await client.connected();
  if (client.transport === 'upgrade') {
    await eventually('the transport is upgraded', () => client.socket.io.engine.transport.name === 'websocket');
  }
  return client;
}

function opened({ user, node = w.b, ...options }) {
  const client = new OldClient(node, { namespace, token: user && token({ sub: user }), ...options });
  clients.push(client);
  return client;
}

const current = (user, node, options = {}) => w.connect({ namespace, user, ...options }, node);

/** Starts a node of its own for a test. */
async function start({ toml = '', ...options } = {}) {
  const node = await Node.start({ contracts: [fixture('old-clients'), fixture('alone/old-root')], toml: ALLOWED + toml, ...options });
  others.push(node);
  return node;
}

for (const version of OLD_CLIENTS) {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`client ${version} over ${transport} shares rooms, events, binary and acks with current clients`, async () => {
      const client = await old({ version, transport, user: 'ann' });
      const friends = [client, await current('bob', far), await old({ user: 'cid', node: far, transport })];
      for (const friend of friends) assert.equal((await friend.ask('enter', 'mixed')).success, true);
      for (const sender of friends) {
        sender.send('tell', 'mixed', ...ARGS);
        for (const friend of friends) assert.deepEqual(await friend.next(), ['told', 'mixed', ...ARGS]);
      }
      for (const args of [[], [1, 'two', { three: null }], ARGS]) {
        assert.deepEqual(await client.acked('echo', ...args), args);
        assert.deepEqual(await client.next(), ['echoed', ...args]);
      }
      client.socket.on('confirm', (...args) => args.pop()('yes', ...args));
      const { body } = await far.api('POST', '/api/v1/ask', { namespace, users: ['ann'], event: 'confirm', args: ['sure?', 3] });
      assert.deepEqual(body.answers.map(({ args }) => args), [['yes', 'sure?', 3]]);
      client.send('echo', 'still here');
      await eventually('the order of events is kept', () => client.inbox.at(-1)?.[1] === 'still here');
      client.close();
      assert.equal(await client.ended(), 'io client disconnect');
      await eventually('its room is left', async () => (await members('mixed')).every(({ userId }) => userId !== 'ann'));
    });
  }
}

const inNamespace = `namespace=${encodeURIComponent(namespace)}`;
const members = async (hall) => (await w.a.api('GET', `/api/v1/rooms/hall:${hall}/members?${inNamespace}`)).body.items;

describe('tokens', () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    test(`over ${transport}, a token in the query is found, of the URL for / and of the namespace for others`, async () => {
      const root = await old({ user: 'ann', namespace: '/', transport });
      assert.deepEqual(await root.acked('echo', 1), [1]);
      const inPath = await old({ namespace: `${namespace}?token=${token({ sub: 'ann' })}&x=%22`, transport });
      assert.deepEqual(await inPath.acked('echo', 1), [1]);
      // One connection may be in both namespaces.
      const second = root.socket.io.socket(namespace, { query: `token=${token({ sub: 'ann' })}` });
      await eventually('the second namespace is connected', () => second.connected);
      second.close();
      assert.deepEqual(await root.acked('echo', 2), [2]);
    });

    test(`over ${transport}, a refused client gets the code and the reason as a text`, async () => {
      const none = { code: /^AUTHENTICATION_FAILED: a token is required$/ };
      for (const [options, { code }] of [
        [{}, none],
        [{ namespace: '/' }, none],
        [{ token: 'wrong' }, { code: /^AUTHENTICATION_FAILED: the token is not a JWT$/ }],
      ]) {
        await assert.rejects(old({ transport, ...options }), (error) => code.test(error));
      }
      await assert.rejects(old({ transport, namespace: '/nowhere', user: 'ann' }), ({ message }) => message === 'Invalid namespace');
    });
  }
});

test('contracts, limits and the API apply as to other clients', async () => {
  for (const transport of Object.keys(TRANSPORTS)) {
    const client = await old({ user: 'ann', transport });
    assert.deepEqual(await client.acked('seldom', 1), [1]);
    assert.equal((await client.ask('seldom', 2)).error.code, 'RATE_LIMIT_EXCEEDED');
    assert.equal((await client.ask('unheard')).error.code, 'UNKNOWN_EVENT');
    assert.equal((await client.ask('enter', {})).error.code, 'INVALID_PAYLOAD');
    const found = await eventually('the API knows it', async () => {
      const { body } = await far.api('GET', `/api/v1/connections?${inNamespace}`);
      return body.items.find(({ userId }) => userId === 'ann');
    });
    const one = await far.api('GET', `/api/v1/connections/${encodeURIComponent(found.socketId)}?${inNamespace}`);
    assert.equal(one.body.socketId, found.socketId);
    assert.equal(found.transport, transport === 'websocket' ? 'websocket' : 'polling');
    assert.ok(found.socketId.startsWith(`${namespace}#`));
    if (transport === 'websocket') assert.equal(found.socketId, client.id, 'the id is the one that the client has');
    else assert.notEqual(found.socketId, client.id, "the client's id is a secret");
    assert.equal(await w.b.metric('roomcast_protocols', { protocol: '3' }), 1);
    await far.api('POST', '/api/v1/disconnect', { namespace, sockets: [found.socketId] });
    assert.equal(await client.ended(), 'io server disconnect', transport);
    client.close();
    await eventually('it is not counted', async () => (await w.b.metric('roomcast_protocols', { protocol: '3' })) === 0);
  }
});

test('a user whose sessions are revoked is disconnected', async () => {
  const client = await old({ user: 'mallory' });
  const reply = await far.api('POST', '/api/v1/revocations', { users: ['mallory'] });
  assert.equal(reply.status, 202, JSON.stringify(reply.body));
  await client.ended();
  await assert.rejects(old({ user: 'mallory' }), (error) => /AUTHENTICATION_FAILED/.test(error));
});

for (const transport of Object.keys(TRANSPORTS)) {
  test(`over ${transport}, a client whose connection the node closes comes back by itself`, async () => {
    const client = await old({ user: 'ann', transport, ...BACK });
    const before = client.id;
    await far.api('POST', '/api/v1/disconnect', { namespace, users: ['ann'], close: true });
    assert.equal(await client.ended(), 'transport close');
    await eventually('it is back', () => client.socket.connected && client.id !== before);
    assert.deepEqual(await client.acked('echo', 1), [1]);
  });

  test(`over ${transport}, a drained node gets rid of its clients, who have got everything`, async () => {
    const node = await start();
    const client = await old({ node, user: 'ann', transport });
    await node.emit({ namespace, event: 'last', args: [1] });
    await node.api('POST', '/api/v1/drain');
    assert.equal(await client.ended(), 'transport close');
    assert.deepEqual(client.inbox, [['last', 1]]);
    await eventually('nobody is left', async () => (await node.api('GET', '/api/v1/drain')).body.left === 0);
    await node.stop();
  });
}

test('a client that joins nothing is closed after the time to connect, and others stay', async () => {
  const node = await start({ toml: 'connect_timeout = "1s"\n' });
  for (const transport of Object.keys(TRANSPORTS)) {
    const stays = await old({ node, user: 'ann', transport });
    const refused = opened({ node, transport });
    await assert.rejects(refused.connected());
    const engine = refused.socket.io.engine;
    await eventually('its connection is closed', () => engine.readyState === 'closed');
    assert.equal(stays.disconnected, undefined);
    assert.deepEqual(await stays.acked('echo', 1), [1]);
  }
});

test('the heartbeat of a client keeps it, and its absence ends it', async () => {
  const node = await start({ toml: 'ping_interval = "300ms"\nping_timeout = "400ms"\n' });
  const staying = await Promise.all(Object.keys(TRANSPORTS).map((transport) => old({ node, user: transport, transport })));
  const silent = new WebSocket(`${node.url.replace('http', 'ws')}/socket.io/?EIO=3&transport=websocket`);
  const closed = new Promise((resolve) => silent.on('close', resolve));
  await closed;
  for (const client of staying) {
    let pongs = 0;
    client.socket.on('pong', () => (pongs += 1));
    await eventually('the client gets pongs', () => pongs > 2);
    assert.equal(client.disconnected, undefined, client.transport);
  }
});

describe('without a contract for /', () => {
  test('a client is connected to / all the same, and nothing happens there', async () => {
    const node = await start({ contracts: [fixture('mirror')] });
    for (const transport of Object.keys(TRANSPORTS)) {
      const client = await old({ node, namespace: '/', transport });
      client.send('echo', 1);
      const unknown = () => node.metric('roomcast_events_received_total', { contract: 'unknown', result: 'UNKNOWN_EVENT' });
      await eventually('its event is counted', async () => (await unknown()) === 1 + Object.keys(TRANSPORTS).indexOf(transport));
      assert.equal(await node.metric('roomcast_connections'), 0, 'it has no session');
      const mirror = client.socket.io.socket('/mirror');
      await eventually('it may connect to others', () => mirror.connected);
      assert.equal(await node.metric('roomcast_connections'), 1);
      client.close();
    }
    const refused = w.open({ namespace: '/' }, node);
    await assert.rejects(refused.connected(), /Invalid namespace/);
  });
});

describe('requests written by hand', () => {
  const open = '/socket.io/?EIO=3&transport=polling';
  const ask = async (path, body, type = 'text/plain;charset=UTF-8') => {
    const init = body && { method: 'POST', body, headers: { 'content-type': type } };
    const answer = await fetch(w.b.url + path, init);
    return { status: answer.status, type: answer.headers.get('content-type'), text: await answer.text() };
  };
  /** Opens a session. Returns its path. */
  const session = async (query = '') => {
    const { text } = await ask(open + query);
    const [, length, packet] = /^(\d+):(0\{.*\})/.exec(text);
    assert.equal(Number(length), packet.length);
    return `${open}${query}&sid=${JSON.parse(packet.slice(1)).sid}`;
  };
  const framed = (kind, bytes) => Buffer.concat([Buffer.from([kind, ...[...String(bytes.length)].map(Number), 255]), Buffer.from(bytes)]);
  /** Polls until the payloads contain a text. */
  const until = async (path, wanted) => {
    let all = '';
    await eventually(`${wanted} arrives`, async () => (all += (await ask(path)).text).includes(wanted));
    return all;
  };

  test('a browser sends binary in frames, and gets it as base64', async () => {
    const path = await session();
    const name = `${namespace}?token=${token({ sub: 'ann' })}`;
    const connect = framed(0, `40${name},`);
    assert.equal((await ask(path, Buffer.concat([framed(0, '2'), connect]), 'application/octet-stream')).text, 'ok');
    await until(path, `40${namespace},`);
    const event = framed(0, `451-${namespace},["echo",{"_placeholder":true,"num":0}]`);
    assert.equal((await ask(path, Buffer.concat([event, framed(1, [4, ...BYTES])]), 'application/octet-stream')).text, 'ok');
    assert.match(await until(path, 'b4'), /451-\/private,\["echoed",\{"_placeholder":true,"num":0\}\]6:b4AAH\//);
    assert.equal((await ask(path, '1:1')).text, 'ok');
    assert.deepEqual((await ask(path)).status, 400);
  });

  test('rubbish ends its own session only', async () => {
    const witness = await old({ user: 'ann' });
    for (const body of ['x', '9:4', '-1:4', '99999999999999999999:4', '3:40/?', `${'9'.repeat(40)}:40/?x,`, '10:40/?%zz=%,']) {
      const path = await session();
      assert.ok([200, 400].includes((await ask(path, body)).status), body);
      assert.ok([200, 400].includes((await ask(path, Buffer.from(body), 'application/octet-stream')).status), body);
    }
    const path = await session();
    assert.equal((await ask(path, `2000000:${'4'.repeat(2_000_000)}`)).status, 413);
    assert.deepEqual(await witness.acked('echo', 1), [1]);
  });

  test('a session is for requests of its own version', async () => {
    const three = await session();
    const { text } = await ask('/socket.io/?EIO=4&transport=polling');
    const four = `/socket.io/?EIO=4&transport=polling&sid=${JSON.parse(text.slice(1)).sid}`;
    for (const path of [three.replace('EIO=3', 'EIO=4'), four.replace('EIO=4', 'EIO=3'), three.replace('EIO=3&', '')]) {
      assert.deepEqual(await ask(path, '1:1'), { status: 400, type: 'application/json', text: '{"code":5,"message":"Unsupported protocol version"}' });
    }
    assert.equal((await ask(three, '1:1')).text, 'ok');
  });

  test('JSONP is refused with a clear error', async () => {
    assert.match((await ask(`${open}&j=0`)).text, /JSONP polling is not supported/);
    assert.equal((await ask(open.replace('EIO=3', 'EIO=2'))).text, '{"code":5,"message":"Unsupported protocol version"}');
  });

  test('an upgrade that breaks ends the session, and its rooms are left', async () => {
    const path = await session();
    const connect = `40${namespace}?token=${token({ sub: 'eve' })},`;
    await ask(path, `${connect.length}:${connect}`);
    await until(path, `40${namespace},`);
    const count = () => w.b.metric('roomcast_connections', { nsp: namespace });
    assert.equal(await count(), 1);
    const socket = new WebSocket(w.b.url.replace('http', 'ws') + path.replace('polling', 'websocket'));
    await new Promise((resolve) => socket.on('open', resolve));
    socket.terminate();
    await eventually('the session has ended', async () => (await count()) === 0);
  });
});

describe('beside the Node.js server', () => {
  test('clients see the same', async () => {
    const server = http.createServer();
    const io = new Server(server, { allowEIO3: true });
    for (const nsp of ['/', namespace]) {
      const permitted = ({ handshake: { auth, query } }) => (nsp === '/' ? query.token : auth.token)?.length > 9;
      io.of(nsp).use((socket, next) => (permitted(socket) ? next() : next(new Error('AUTHENTICATION_FAILED: a token is required'))));
      io.of(nsp).on('connection', (socket) => {
        socket.on('echo', (...args) => {
          const ack = args.pop();
          if (nsp !== '/') socket.emit('echoed', ...args);
          ack(...args);
        });
      });
    }
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const nodejs = { url: `http://127.0.0.1:${server.address().port}` };
    const seen = async (node, options) => {
      const client = opened({ node, ...options });
      const said = { error: await client.connected().then(() => undefined, (error) => error) };
      if (!said.error) {
        said.id = client.id.replace(/[\w-]{16,}$/, 'ID');
        said.acked = await client.acked('echo', ...ARGS);
        said.inbox = client.inbox;
        client.socket.disconnect();
        said.disconnected = client.disconnected;
      }
      client.close();
      return said;
    };
    for (const version of OLD_CLIENTS) {
      for (const transport of Object.keys(TRANSPORTS)) {
        // Without a token, a client is refused in `/`, too, and shows whichever refusal comes first.
        for (const [nsp, user] of [['/', 'ann'], ['/'], [namespace, 'ann'], [namespace], ['/nowhere', 'ann']]) {
          const options = { version, transport, namespace: nsp, user };
          assert.deepEqual(await seen(w.b, options), await seen(nodejs, options), JSON.stringify(options));
        }
      }
    }
    io.close();
  });
});
