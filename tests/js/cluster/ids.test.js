// One name may be a room and the id of a client. Emitters and Node.js servers address both the room and the client;
// requests that say which of the two they address reach only that one.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { comeBack, cut } from '../harness/returning.js';
import { ENGINE, world } from '../harness/world.js';

// In both contracts every name is permitted as the name of a room.
const contracts = ['embedded:chat', join(ROOT, 'tests/js/fixtures/alone/ids.toml')];
const namespace = '/ids';

for (const wire of ['compact', 'socketio']) {
  describe(`with redis.wire = "${wire}"`, async () => {
    const w = await world({ contracts, mode: 'cluster', env: { ROOMCAST_REDIS__WIRE: wire } });
    const publisher = createClient({ url: w.redis.url });
    publisher.on('error', () => {});
    await publisher.connect();
    after(() => publisher.disconnect());
    afterEach(() => w.clear());
    const emitter = new Emitter(publisher);
    const strangers = emitter.of(namespace);

    /** Connects a client to each node, and joins these rooms. Waits until one node publishes events with rules. */
    async function pair(...rooms) {
      const clients = [await w.connect({ namespace, user: 'ada' }, w.b), await w.connect({ namespace, user: 'bob' }, w.a)];
      for (const client of clients) for (const room of rooms) assert.equal((await client.ask('join', room)).success, true);
      await eventually('one node publishes', async () => {
        strangers.emit('entry', { n: 0 });
        return clients.every(({ inbox }) => inbox.length > 0);
      });
      for (const client of clients) await drain(client);
      return clients;
    }

    /** Returns all events before a marker. One node publishes all of them, and it keeps their order. */
    let marks = 0;
    async function drain(client) {
      const mark = ++marks;
      strangers.emit('mark', mark);
      const at = await eventually('the mark arrives', () => client.inbox.findIndex(([name, n]) => name === 'mark' && n === mark) + 1);
      return client.inbox.splice(0, at).filter(([name]) => name !== 'mark' && name !== 'entry').map(([name, { n }]) => `${name} ${n}`);
    }

    test('the embedded chat: to one client, and to a room without its sender', async () => {
      const ada = await w.connect({ user: 'ada' }, w.b);
      const bob = await w.connect({ user: 'bob' }, w.a);
      for (const client of [ada, bob]) await client.ask('room:join', { room: 'lobby' });
      const message = (content) => ({ from: 'ada', room: 'lobby', content, type: 'text' });
      const got = (client) => client.inbox.filter(([name]) => name === 'message' || name === 'anything').map(([, { content }]) => content);
      await eventually('one node publishes', async () => {
        emitter.to('lobby').emit('message', message('probe'));
        return got(ada).length > 0 && got(bob).length > 0;
      });
      emitter.to(ada.id).emit('message', message('to ada'));
      emitter.to('lobby').except(ada.id).emit('message', message('not to ada'));
      emitter.to(ada.id).emit('anything', message('no rule is about this'));
      emitter.to('lobby').emit('message', message('end'));
      for (const client of [ada, bob]) await eventually('the end', () => got(client).includes('end'));
      await eventually('the event without a rule', () => got(ada).includes('no rule is about this'));
      const only = (client) => got(client).filter((content) => content !== 'probe').sort();
      assert.deepEqual(only(ada), ['end', 'no rule is about this', 'to ada']);
      assert.deepEqual(only(bob), ['end', 'not to ada']);
    });

    test('an emitter who names an id means the client, and a room of this name, too', async () => {
      const [ada, bob] = await pair('lobby');
      const carol = await w.connect({ namespace, user: 'carol' }, w.a);
      await carol.ask('join', ada.id);
      for (const event of ['message', 'plain']) {
        strangers.to(ada.id).emit(event, { n: 1 });
        strangers.to('lobby').except(ada.id).emit(event, { n: 2 });
        strangers.to(['lobby', ada.id]).except(bob.id).emit(event, { n: 3 });
      }
      assert.deepEqual(await drain(ada), ['message 1', 'message 3', 'plain 1', 'plain 3']);
      assert.deepEqual(await drain(bob), ['message 2', 'plain 2']);
      assert.deepEqual(await drain(carol), ['message 1', 'message 3', 'plain 1', 'plain 3'], 'as with a server of Node.js');
    });

    test('what is for one client does not reach the members of a room that has the name of its id', async () => {
      const [ada, bob] = await pair();
      // One of these clients is connected to the node of `ada`, and one to the other node.
      const others = [bob, await w.connect({ namespace, user: 'carol' }, w.b)];
      for (const other of others) await other.ask('join', ada.id);
      bob.send('tell', { to: ada.id, n: 1 });
      for (const node of w.nodes) {
        await node.emit({ namespace, sockets: [ada.id], event: 'own', args: [{ n: 2 }] });
        await node.emit({ namespace, rooms: [ada.id], event: 'room', args: [{ n: 3 }] });
        await node.emit({ namespace, users: ['ada'], rooms: ['none'], except: [ada.id], event: 'nobody', args: [{ n: 4 }] });
      }
      await eventually('what a client told', () => ada.inbox.some(([name]) => name === 'told'));
      assert.deepEqual((await drain(ada)).sort(), ['own 2', 'own 2', 'told 1']);
      for (const other of others) assert.deepEqual(await drain(other), ['room 3', 'room 3']);
      ada.socket.on('confirm', (done) => done('ada'));
      for (const node of w.nodes) {
        const { body } = await node.api('POST', '/api/v1/ask', { namespace, sockets: [ada.id], event: 'confirm' });
        assert.deepEqual(body.answers, [{ socketId: ada.id, args: ['ada'] }]);
        assert.equal(body.asked, 1);
      }
    });

    test('requests of emitters look both up, too', async () => {
      const [ada, bob] = await pair('lobby');
      strangers.in('lobby').except(ada.id).socketsJoin('made');
      await eventually('one is in', async () => {
        strangers.to('made').emit('made', { n: 1 });
        return bob.inbox.length > 0;
      });
      strangers.in(ada.id).socketsJoin('own');
      await eventually('the other is in', async () => {
        strangers.to('own').emit('own', { n: 1 });
        return ada.inbox.length > 0;
      });
      assert.ok((await drain(ada)).every((event) => event === 'own 1'));
      assert.ok((await drain(bob)).every((event) => event === 'made 1'));
      strangers.in('lobby').except(bob.id).disconnectSockets();
      assert.equal(await ada.ended(), 'io server disconnect');
      assert.equal(bob.disconnected, undefined);
    });

    if (ENGINE === 'native') {
      test('a client that comes back gets what was sent to its id, and not what left it out', async () => {
        const [ada, bob] = await pair('lobby');
        const { id } = ada;
        await cut(ada);
        strangers.to(id).emit('message', { n: 1 });
        strangers.to('lobby').except(id).emit('message', { n: 2 });
        strangers.to('lobby').emit('message', { n: 3 });
        assert.deepEqual(await drain(bob), ['message 2', 'message 3']);
        assert.equal(await comeBack(ada), true);
        assert.equal(ada.id, id);
        assert.deepEqual(await drain(ada), ['message 1', 'message 3']);
      });
    }
  });
}
