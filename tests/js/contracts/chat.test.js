// Contract 5: rooms, messages, typing, presence.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { like, number, text, timestamp } from '../harness/eventually.js';
import { token } from '../harness/token.js';
import { ENGINE, world } from '../harness/world.js';

const w = await world({ contracts: ['embedded:chat'] });
const other = w.nodes.at(0);
const here = w.nodes.at(-1);
const failure = (code) => ({ code, message: text });
let rooms = 0;
const newRoom = () => `r${(rooms += 1)}`;

/** Connects a client and joins these rooms. Returns the client after it has read its greetings. */
async function member(user, joins, { node = here, ...options } = {}) {
  const client = await w.connect({ user, ...options }, node);
  for (const room of joins) await join(client, room);
  return client;
}

async function join(client, room) {
  assert.deepEqual(await client.ask('room:join', { room }), { success: true, room });
  like(await client.next(), ['room:joined', { room, userId: client.user, timestamp }]);
}

afterEach(() => w.clear());

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    test('a message reaches the room on every node, with an id and a timestamp, and nobody else', async () => {
      const room = newRoom();
      const alice = await member('alice', [room], { transport });
      const bob = await member('bob', [room], { transport, node: other });
      const carol = await member('carol', [newRoom()], { transport, node: other });
      const message = { from: 'alice', room, content: 'hello\n"you"', type: 'text', metadata: { n: 1 } };
      const ack = await alice.ask('message', message);
      like(ack, { success: true, id: text, timestamp });
      const delivered = [['message', { ...message, id: ack.id, timestamp: ack.timestamp }]];
      assert.deepEqual(await bob.drain(here), delivered);
      assert.deepEqual(await alice.drain(here), delivered);
      assert.deepEqual(await carol.drain(here), []);
    });

    test('a message to a user reaches all of their sockets, to a socket only that one', async () => {
      const alice = await member('alice', [], { transport });
      const [bob1, bob2, carol] = [
        await member('bob', [], { transport }),
        await member('bob', [], { transport, node: other }),
        await member('carol', [], { transport, node: other }),
      ];
      const toUser = { from: 'alice', to: 'bob', content: 'one', type: 'text' };
      const first = await alice.ask('message', toUser);
      const toSocket = { from: 'alice', to: bob2.id, content: { two: 2 }, type: 'data' };
      const second = await alice.ask('message', toSocket);
      const one = ['message', { ...toUser, id: first.id, timestamp: first.timestamp }];
      const two = ['message', { ...toSocket, id: second.id, timestamp: second.timestamp }];
      assert.notEqual(first.id, second.id);
      assert.deepEqual(await bob1.drain(here), [one]);
      assert.deepEqual(await bob2.drain(here), [one, two]);
      assert.deepEqual(await carol.drain(here), []);
      assert.deepEqual(await alice.drain(here), []);
    });

    test('typing reaches the others, and leaving or disconnecting implies the stop', async () => {
      const room = newRoom();
      const alice = await member('alice', [room], { transport });
      const bob = await member('bob', [room], { transport, node: other });
      const typing = (event, isTyping) => [event, { userId: 'alice', room, isTyping }];
      assert.equal((await alice.ask('typing:start', { room })).success, true);
      assert.equal((await alice.ask('typing:stop', { room })).success, true);
      assert.deepEqual(await bob.drain(here), [typing('typing:start', true), typing('typing:stop', false)]);
      assert.deepEqual(await alice.drain(here), []);

      const dave = await member('dave', [room], { transport });
      const daves = (event, isTyping) => [event, { userId: 'dave', room, isTyping }];
      await dave.ask('typing:start', { room });
      assert.deepEqual(await dave.ask('room:leave', { room }), { success: true, room });
      assert.deepEqual(await bob.drain(here), [daves('typing:start', true), daves('typing:stop', false)]);
      like(await dave.next(), ['room:left', { room, userId: 'dave', timestamp }]);

      const erin = await member('erin', [room], { transport });
      await erin.ask('typing:start', { room });
      erin.close();
      assert.deepEqual(await bob.next(), ['typing:start', { userId: 'erin', room, isTyping: true }]);
      assert.deepEqual(await bob.next(), ['typing:stop', { userId: 'erin', room, isTyping: false }]);
    });

    test('a presence update reaches everybody who shares a room, once', async () => {
      const [r1, r2, r3] = [newRoom(), newRoom(), newRoom()];
      const alice = await member('alice', [r1, r2], { transport });
      const bob = await member('bob', [r1, r2], { transport, node: other });
      const carol = await member('carol', [r2], { transport });
      const stranger = await member('dave', [r3], { transport, node: other });
      for (const status of ['away', 'busy', 'offline', 'online']) {
        assert.equal((await alice.ask('presence:update', status)).success, true);
        const expected = [['presence:update', { userId: 'alice', status, timestamp }]];
        like(await bob.drain(here), expected);
        like(await carol.drain(here), expected);
        assert.deepEqual(await stranger.drain(here), []);
      }
    });

    test('ping is answered with a pong, to the caller', async () => {
      const room = newRoom();
      const [alice, bob] = [await member('alice', [room], { transport }), await member('bob', [room], { transport })];
      alice.send('ping');
      const [event] = await alice.next();
      assert.equal(event, 'pong');
      assert.equal((await alice.ask('ping')).success, true);
      assert.equal((await alice.next())[0], 'pong');
      assert.deepEqual(await bob.drain(here), []);
    });
  });
}

describe('rooms', () => {
  test('joining tells the caller, and a member may come back', async () => {
    const alice = await member('alice', []);
    const room = newRoom();
    alice.send('room:join', { room, metadata: { device: 'desk' } });
    like(await alice.next(), ['room:joined', { room, userId: 'alice', timestamp }]);
    alice.send('room:leave', { room });
    like(await alice.next(), ['room:left', { room, userId: 'alice', timestamp }]);
    await join(alice, room);
    await join(alice, room);
  });

  test('a room that cannot be is an error: in the ack, or as room:error', async () => {
    const alice = await member('alice', []);
    for (const [payload, code] of [
      [{ room: 'line\nbreak' }, 'INVALID_ROOM'],
      [{ room: '$user:bob' }, 'INVALID_ROOM'],
      [{ room: `$sid:${alice.id}` }, 'INVALID_ROOM'],
      [{ room: '' }, 'INVALID_MESSAGE'],
      [{ room: 'x'.repeat(129) }, 'INVALID_MESSAGE'],
      [{ room: 7 }, 'INVALID_MESSAGE'],
      [{}, 'INVALID_MESSAGE'],
      ['lobby', 'INVALID_MESSAGE'],
      [null, 'INVALID_MESSAGE'],
      [{ room: 'lobby', metadata: 'text' }, 'INVALID_MESSAGE'],
    ]) {
      for (const event of ['room:join', 'room:leave']) {
        if (event === 'room:leave' && payload?.metadata) continue;
        like(await alice.ask(event, payload), failure(code), JSON.stringify(payload));
        assert.deepEqual(await alice.drain(here), []);
        alice.send(event, payload);
        const [name, error] = await alice.next();
        assert.equal(name, 'room:error');
        like({ code: error.code, message: error.message }, failure(code), JSON.stringify(payload));
      }
    }
  });

  test('a name of any script is a room', async () => {
    for (const room of ['Zürich 東京', 'a:b/c#d e', 'x'.repeat(128)]) {
      const [alice, bob] = [await member('alice', [room]), await member('bob', [room], { node: other })];
      const ack = await alice.ask('message', { from: 'alice', room, content: '✓', type: 'text' });
      like(await bob.drain(here), [['message', { from: 'alice', room, content: '✓', type: 'text', id: ack.id, timestamp }]]);
      w.clear();
    }
  });

  test('whoever left gets nothing more', async () => {
    const room = newRoom();
    const [alice, bob] = [await member('alice', [room]), await member('bob', [room], { node: other })];
    await bob.ask('room:leave', { room });
    like(await bob.next(), ['room:left', { room, userId: 'bob', timestamp }]);
    await alice.ask('message', { from: 'alice', room, content: 'c', type: 'text' });
    assert.deepEqual(await bob.drain(here), []);
  });
});

describe('messages', () => {
  const room = 'letters';

  test('the sender must be who they say, and in the room', async () => {
    const bob = await member('bob', [room], { node: other });
    const alice = await member('alice', []);
    const send = (from, more) => alice.ask('message', { from, content: 'c', type: 'text', ...more });
    like(await send('bob', { room }), failure('AUTHORIZATION_FAILED'));
    like(await send('bob', { to: 'bob' }), failure('AUTHORIZATION_FAILED'));
    like(await send('', { to: 'bob' }), failure('AUTHORIZATION_FAILED'));
    like(await send('alice', { room }), failure('AUTHORIZATION_FAILED'));
    assert.deepEqual(await bob.drain(here), []);
    alice.send('message', { from: 'bob', content: 'c', type: 'text', room });
    like(await alice.next(), ['error', failure('AUTHORIZATION_FAILED')]);
  });

  test('an address does not open the rooms behind it', async () => {
    const bob = await member('bob', [room], { node: other });
    const alice = await member('alice', []);
    for (const to of [room, '$user:bob', `$sid:${bob.id}`]) {
      await alice.ask('message', { from: 'alice', content: 'c', type: 'text', to });
    }
    assert.deepEqual(await bob.drain(here), []);
  });

  test('with a room and an address, the room counts', async () => {
    const bob = await member('bob', [room], { node: other });
    const [alice, carol] = [await member('alice', [room]), await member('carol', [])];
    const message = { from: 'alice', room, to: 'carol', content: 'c', type: 'text' };
    const { id } = await alice.ask('message', message);
    like(await bob.drain(here), [['message', { ...message, id, timestamp }]]);
    assert.deepEqual(await carol.drain(here), []);
  });

  test('a client cannot choose the id or the time', async () => {
    const [alice, bob] = [await member('alice', [room]), await member('bob', [room], { node: other })];
    const message = { from: 'alice', room, content: 'c', type: 'text', id: 'mine', timestamp: '2000-01-01T00:00:00.000Z' };
    const ack = await alice.ask('message', message);
    assert.notEqual(ack.id, 'mine');
    like(await bob.drain(here), [['message', { ...message, id: ack.id, timestamp }]]);
  });

  test('without an ack it is delivered all the same', async () => {
    const [alice, bob] = [await member('alice', [room]), await member('bob', [room], { node: other })];
    alice.send('message', { from: 'alice', room, content: '', type: 'text' });
    like(await bob.next(), ['message', { from: 'alice', room, content: '', type: 'text', id: text, timestamp }]);
  });

  test('wrong shapes are INVALID_MESSAGE, in the ack or as error', async () => {
    const alice = await member('alice', [room]);
    const good = { from: 'alice', room, content: 'c', type: 'text' };
    for (const payload of [
      undefined,
      'text',
      7,
      [good],
      { ...good, from: undefined },
      { ...good, content: undefined },
      { ...good, type: undefined },
      { ...good, type: 5 },
      { ...good, room: undefined },
      { ...good, room: '' },
      { ...good, from: ['alice'] },
      { ...good, metadata: 'm' },
      { ...good, room: undefined, to: '' },
      { ...good, room: undefined, to: { id: 'bob' } },
    ]) {
      like(await alice.ask('message', payload), failure('INVALID_MESSAGE'), JSON.stringify(payload));
      alice.send('message', payload);
      like(await alice.next(), ['error', failure('INVALID_MESSAGE')], JSON.stringify(payload));
    }
    assert.deepEqual(await alice.drain(here), []);
  });

  test('an event that nobody knows is an error with a code of the list', async () => {
    const alice = await member('alice', []);
    like(await alice.ask('room:joined', {}), failure('INVALID_MESSAGE'));
    alice.send('no-such-event');
    like(await alice.next(), ['error', failure('INVALID_MESSAGE')]);
  });
});

describe('typing', () => {
  test('is throttled, for each room', async () => {
    const [r1, r2] = [newRoom(), newRoom()];
    const alice = await member('alice', [r1, r2]);
    const bob = await member('bob', [r1, r2], { node: other });
    for (let count = 0; count < 20; count += 1) {
      assert.equal((await alice.ask('typing:start', { room: r1 })).success, true);
    }
    assert.equal((await alice.ask('typing:start', { room: r2 })).success, true);
    const start = (room) => ['typing:start', { userId: 'alice', room, isTyping: true }];
    assert.deepEqual(await bob.drain(here), [start(r1), start(r2)]);
  });

  test('a stop is not implied where nothing was started, or was stopped already', async () => {
    const room = newRoom();
    const bob = await member('bob', [room], { node: other });
    const alice = await member('alice', [room]);
    await alice.ask('room:leave', { room });
    assert.deepEqual(await bob.drain(here), []);

    const carol = await member('carol', [room]);
    await carol.ask('typing:start', { room });
    await carol.ask('typing:stop', { room });
    await carol.ask('room:leave', { room });
    assert.deepEqual((await bob.drain(here)).map(([event]) => event), ['typing:start', 'typing:stop']);
  });

  test('only members may type', async () => {
    const room = newRoom();
    const bob = await member('bob', [room], { node: other });
    const alice = await member('alice', []);
    for (const event of ['typing:start', 'typing:stop']) {
      like(await alice.ask(event, { room }), failure('AUTHORIZATION_FAILED'));
      like(await alice.ask(event, {}), failure('INVALID_MESSAGE'));
    }
    alice.close();
    assert.deepEqual(await bob.drain(here), []);
  });
});

describe('presence', () => {
  test('comes as a bare word or in an object, and only as one of four', async () => {
    const room = newRoom();
    const [alice, bob] = [await member('alice', [room]), await member('bob', [room], { node: other })];
    assert.equal((await alice.ask('presence:update', { status: 'busy' })).success, true);
    like(await bob.drain(here), [['presence:update', { userId: 'alice', status: 'busy', timestamp }]]);
    for (const payload of ['', 'asleep', 5, null, {}, { status: 'Away' }, ['online']]) {
      like(await alice.ask('presence:update', payload), failure('INVALID_MESSAGE'), JSON.stringify(payload));
    }
    assert.deepEqual(await bob.drain(here), []);
  });
});

describe('connecting', () => {
  for (const [what, options] of Object.entries({
    'no token': {},
    'a bad token': { token: token({ sub: 'alice' }, { secret: 'another-secret-that-is-long-enough-000' }) },
  })) {
    test(`${what}: connect_error`, async () => {
      const error = await w.connect(options).catch((refused) => refused);
      assert.match(error.message, /^AUTHENTICATION_FAILED: ./);
      // socketioxide, the other engine, cannot send `data` with a connect_error.
      if (ENGINE === 'native') like(error.data, failure('AUTHENTICATION_FAILED'));
    });
  }
});

describe('for backends', () => {
  const publish = (event, data, params) => w.a.publish('chat', event, data, params);

  test('messages, presence and typing reach the room', async () => {
    const room = newRoom();
    const [alice, bob] = [await member('alice', [room]), await member('bob', [newRoom()])];
    const message = { from: 'system', room, content: 'c', type: 'notice' };
    await publish('message', message);
    await publish('presence:update', { userId: 'x', status: 'away' }, { room });
    await publish('typing:start', { userId: 'bot', room });
    await publish('typing:stop', { userId: 'bot', room });
    like(await alice.drain(w.a), [
      ['message', { ...message, id: text, timestamp }],
      ['presence:update', { userId: 'x', status: 'away', timestamp }],
      ['typing:start', { userId: 'bot', room, isTyping: true }],
      ['typing:stop', { userId: 'bot', room, isTyping: false }],
    ]);
    assert.deepEqual(await bob.drain(w.a), []);
  });
});

test('pong carries the time, for a latency reading', async () => {
  const alice = await member('alice', []);
  alice.send('ping');
  const [, pong] = await alice.next();
  like(pong, { timestamp: number });
});
