// The protocols as their official test suites demand them (Engine.IO 4 and Socket.IO 5), case by case, on the native engine
// and on the official servers, which show that the cases are right. `scripts/conformance` runs the official suites themselves.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Peer, closeAll } from '../harness/peer.js';
import { native, official } from '../harness/protocol-server.js';

afterEach(closeAll);

for (const [name, start] of Object.entries({ native, official })) {
  // Most cases must not depend on the heartbeat, so the cases that test the heartbeat have their own servers.
  const calm = await start({ pingInterval: 25_000, pingTimeout: 20_000, connectTimeout: 45_000 });
  const lively = await start({ pingInterval: 300, pingTimeout: 20_000, connectTimeout: 45_000 });
  const strict = await start({ pingInterval: 300, pingTimeout: 200, connectTimeout: 45_000 });
  const hasty = await start({ pingInterval: 25_000, pingTimeout: 20_000, connectTimeout: 500 });
  for (const [layer, path] of [['engine', '/engine.io/'], ['socket', '/socket.io/']]) {
    const at = (servers) => new Peer(`http://${servers[layer]}${path}`);
    describe(`${name}, ${path}`, () => transports(at(calm), at(lively), at(strict)));
  }
  describe(`${name}, messages of Engine.IO`, () => messages(new Peer(`http://${calm.engine}/engine.io/`)));
  const at = (servers) => new Peer(`http://${servers.socket}/socket.io/`);
  describe(`${name}, Socket.IO`, () => namespaces(at(calm), at(lively), at(hasty)));
}

/** Cases of the transports, which do not depend on the messages of a session. */
function transports(calm, lively, strict) {
  const handshake = (text, upgrades) => {
    const { sid, ...said } = JSON.parse(text.slice(1));
    assert.equal(text[0], '0');
    assert.equal(typeof sid, 'string');
    assert.deepEqual(said, { upgrades, pingInterval: 25_000, pingTimeout: 20_000, maxPayload: 1_000_000 });
  };

  test('a polling session opens', async () => {
    const { status, text } = await calm.request('EIO=4&transport=polling');
    assert.equal(status, 200);
    handshake(text, ['websocket']);
  });

  test('a WebSocket session opens', async () => {
    handshake(await calm.websocket().next(), []);
  });

  for (const query of ['transport=polling', 'EIO=abc&transport=polling', 'EIO=4', 'EIO=4&transport=abc']) {
    test(`no session opens with ${query}`, async () => {
      assert.equal((await calm.request(query)).status, 400);
      await calm.websocket(query.replace('polling', 'websocket')).closes();
    });
  }

  for (const method of ['POST', 'PUT']) {
    test(`no session opens with ${method}`, async () => {
      assert.equal((await calm.request('EIO=4&transport=polling', { method })).status, 400);
    });
  }

  test('a body that is no packet ends a polling session', async () => {
    const session = await calm.polling();
    await session.post('abc');
    assert.ok(await session.gone());
  });

  test('a message that is no packet ends a WebSocket session', async () => {
    const socket = await calm.session();
    socket.send('abc');
    await socket.closes();
  });

  test('two polls at a time end the session; one of them is told', async () => {
    const session = await calm.polling();
    const answers = await Promise.all([session.poll(), session.poll()]);
    const told = answers.filter(({ status }) => status === 200).map(({ text }) => text);
    assert.deepEqual(told, ['1']);
    assert.ok(await session.gone());
  });

  test('a poll that is given up ends the session', async () => {
    const session = await calm.polling();
    const giveUp = new AbortController();
    const poll = session.poll({ signal: giveUp.signal });
    // Gives the server time to receive the poll. A second poll could not show whether the first has arrived.
    await new Promise((resolve) => setTimeout(resolve, 50));
    giveUp.abort();
    await assert.rejects(poll);
    await eventually('the session is gone', session.gone);
  });

  test('pings come over polling, and are answered', async () => {
    const session = await lively.polling();
    for (let n = 0; n < 3; n += 1) {
      assert.deepEqual(await session.poll(), { status: 200, text: '2' });
      assert.equal((await session.post('3')).status, 200);
    }
  });

  test('pings come on a WebSocket, and are answered', async () => {
    const socket = await lively.session();
    for (let n = 0; n < 3; n += 1) {
      assert.equal(await socket.next(), '2');
      socket.send('3');
    }
  });

  test('a session whose pings are not answered ends', async () => {
    const [session, socket] = [await strict.polling(), strict.websocket()];
    await eventually('the polling session is gone', session.gone);
    await socket.closes();
  });

  test('a client closes its polling session, and its poll is let go', async () => {
    // The poll and the POST use two connections, so the close packet may overtake the poll.
    const letGo = async () => {
      const session = await calm.polling();
      const [poll] = await Promise.all([session.poll(), session.post('1')]);
      assert.ok(await session.gone());
      return poll.text === '6';
    };
    await eventually('a poll comes before the packet', letGo, 20_000);
  });

  test('a client closes its WebSocket session', async () => {
    // The official server closes the WebSocket only when a ping is not answered.
    const socket = await strict.session();
    socket.send('1');
    await socket.closes();
  });

  test('a session moves to a WebSocket, its poll is let go, and requests by its id end nothing', async () => {
    const session = await lively.upgraded();
    assert.deepEqual(await session.poll(), { status: 200, text: '6' });
    session.send('5');
    await eventually('the session polls no longer', async () => (await session.poll()).status === 400);
    await lively.websocket(session.query).closes();
    for (let n = 0; n < 2; n += 1) {
      assert.equal(await session.next(), '2');
      session.send('3');
    }
  });
}

/** Cases of an Engine.IO server that echoes messages, which need not be Socket.IO packets. */
function messages(peer) {
  const echoes = async (body) => {
    const session = await peer.polling();
    assert.deepEqual(await session.post(body), { status: 200, text: 'ok' });
    let text = '';
    while (text.length < body.length) text += (text && '\x1e') + (await session.poll()).text;
    assert.equal(text, body);
  };

  test('a text in a body', () => echoes('4hello'));
  test('several texts in a body', () => echoes('4test1\x1e4test2\x1e4test3'));
  test('text and binary in a body', () => echoes('4hello\x1ebAQIDBA=='));

  test('a text on a WebSocket', async () => {
    const socket = await peer.session();
    socket.send('4hello');
    assert.equal(await socket.next(), '4hello');
  });

  test('binary on a WebSocket', async () => {
    const socket = await peer.session();
    socket.send(Buffer.from([1, 2, 3, 4]));
    assert.deepEqual(await socket.next(), Buffer.from([1, 2, 3, 4]));
  });

  test('after an upgrade', async () => {
    const session = await peer.upgraded();
    session.send('5', '4hello');
    assert.equal(await session.next(), '4hello');
  });
}

/** Cases of Socket.IO 5: namespaces, events and acknowledgements. */
function namespaces(calm, lively, hasty) {
  for (const [namespace, sent] of [['', ''], ['', '{"token":"123"}'], ['/custom,', ''], ['/custom,', '{"token":"abc"}']]) {
    test(`CONNECT 40${namespace}${sent}`, async () => {
      const socket = await calm.session();
      socket.send(`40${namespace}${sent}`);
      const said = await socket.next();
      assert.ok(said.startsWith(`40${namespace}{`), said);
      assert.deepEqual(Object.keys(JSON.parse(said.slice(2 + namespace.length))), ['sid']);
      assert.equal(await socket.next(), `42${namespace}["auth",${sent || '{}'}]`);
    });
  }

  test('a namespace that does not exist', async () => {
    const socket = await calm.session();
    socket.send('40/random');
    assert.equal(await socket.next(), '44/random,{"message":"Invalid namespace"}');
  });

  test('a client that connects to no namespace is sent away', async () => {
    await hasty.websocket().closes();
  });

  test('a client that leaves its only namespace stays connected', async () => {
    const socket = await lively.connected();
    socket.send('41');
    assert.equal(await socket.next(), '2');
  });

  test('a client that leaves a namespace stays in the others', async () => {
    const socket = await calm.connected();
    socket.send('40/custom');
    assert.match(await socket.next(), /^40\/custom,/);
    assert.equal(await socket.next(), '42/custom,["auth",{}]');
    socket.send('41/custom', '42["message","here"]');
    assert.equal(await socket.next(), '42["message-back","here"]');
  });

  const attachments = [Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6])];
  const places = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
  const answers = {
    'an event': [['42["message",1,"2",{"3":[true]}]'], ['42["message-back",1,"2",{"3":[true]}]']],
    'an event and its acknowledgement': [['42456["message-with-ack",1,"2",{"3":[false]}]'], ['43456[1,"2",{"3":[false]}]']],
    'an event with attachments': [[`452-["message",${places}]`, ...attachments], [`452-["message-back",${places}]`, ...attachments]],
    'an acknowledgement with attachments': [
      [`452-789["message-with-ack",${places}]`, ...attachments],
      [`462-789[${places}]`, ...attachments],
    ],
  };
  for (const [what, [sent, expected]] of Object.entries(answers)) {
    test(what, async () => {
      const socket = await calm.connected();
      socket.send(...sent);
      for (const packet of expected) assert.deepEqual(await socket.next(), packet);
    });
  }

  for (const packet of ['4abc', '42{}', '42abc["message-with-ack",1]']) {
    test(`${packet} ends the connection`, async () => {
      const socket = await calm.connected();
      socket.send(packet);
      await socket.closes();
    });
  }

  test('a first packet that is no packet ends the connection', async () => {
    const socket = await calm.session();
    socket.send('4abc');
    await socket.closes();
  });
}
