// Tests requests and actions of backends and operators: any node answers for the whole cluster.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { eventually, like, text, timestamp } from '../harness/eventually.js';
import { world } from '../harness/world.js';

const w = await world({ contracts: ['embedded:chat', 'embedded:vendhub-realtime'] });
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
const q = encodeURIComponent;

afterEach(() => w.clear());

async function get(node, path) {
  const { status, body } = await node.api('GET', `/api/v1${path}`);
  assert.equal(status, 200, `${path}: ${JSON.stringify(body)}`);
  return body;
}

async function member(user, rooms, node = last, metadata = undefined) {
  const client = await w.connect({ user }, node);
  for (const room of rooms) assert.equal((await client.ask('room:join', { room, metadata })).success, true);
  client.inbox.length = 0;
  return client;
}

/** Sends the request to every node until all of them give this answer. */
async function everywhere(path, right) {
  for (const node of w.nodes) {
    await eventually(`${path} is right`, async () => right(await get(node, path)));
  }
}

test('one connection: id, user, since when, rooms, metadata', async () => {
  const alice = await member('alice', ['a', 'b'], last, { device: 'desk' });
  for (const node of w.nodes) {
    const info = await eventually('the connection is known', async () => {
      const { status, body } = await node.api('GET', `/api/v1/connections/${alice.id}?namespace=/`);
      return status === 200 && body.rooms.length === 2 && body.metadata.device && body;
    });
    like(
      [info.socketId, info.userId, info.connectedAt, info.rooms, info.metadata],
      [alice.id, 'alice', timestamp, ['a', 'b'], { device: 'desk' }],
    );
  }
  assert.equal((await first.api('GET', '/api/v1/connections/nobody?namespace=/')).status, 404);
});

test('every node finds the slowest client, wherever it is connected', async () => {
  const [swift, slow] = [await member('swift', [], first), await w.connect({ user: 'slow', transport: 'websocket' }, last)];
  const { _socket: tcp } = slow.socket.io.engine.transport.ws;
  tcp.pause();
  const args = ['x'.repeat(500_000)];
  await eventually('an event is dropped', async () => {
    await last.emit({ namespace: '/', sockets: [slow.id], event: 'large', args });
    return (await get(last, `/connections/${slow.id}?namespace=/`)).dropped > 0;
  });
  for (const node of w.nodes) {
    for (const sort of ['queuedBytes', 'dropped', 'lastWriteAt']) {
      const page = await get(node, `/connections?namespace=/&sort=${sort}`);
      assert.deepEqual([page.partial, page.missingNodes, page.next], [false, [], null]);
      assert.equal(page.items[0].socketId, slow.id, sort);
      assert.ok(page.items.some(({ socketId, queuedBytes }) => socketId === swift.id && queuedBytes === 0), sort);
      const [{ node: of, userId, queuedBytes, dropped }] = page.items;
      assert.deepEqual([of, userId], [(await get(last, `/connections/${slow.id}?namespace=/`)).node, 'slow']);
      assert.ok(queuedBytes > 100_000 && dropped > 0, `${queuedBytes} bytes, ${dropped} dropped`);
    }
    assert.equal((await get(node, '/connections?namespace=/&sort=dropped&limit=1')).items.length, 1);
  }
  tcp.resume();
});

test('one room: name, members, count, since when', async () => {
  const [alice, bob] = [await member('alice', ['den']), await member('bob', ['den'], first)];
  for (const node of w.nodes) {
    const info = await eventually('both are known', async () => {
      const { status, body } = await node.api('GET', '/api/v1/rooms/den?namespace=/');
      return status === 200 && body.memberCount === 2 && body;
    });
    like([info.name, info.createdAt], ['den', timestamp]);
    const members = info.members.map(({ socketId, userId }) => [socketId, userId]).sort();
    assert.deepEqual(members, [[alice.id, 'alice'], [bob.id, 'bob']].sort());
  }
  alice.close();
  await everywhere('/rooms/den?namespace=/', ({ memberCount }) => memberCount === 1);
  bob.close();
  await eventually('an empty room is no room', async () => (await first.api('GET', '/api/v1/rooms/den?namespace=/')).status === 404);
});

test('counts: connected clients, and clients in a room', async () => {
  for (let at = 0; at < 6; at += 1) await member(`u${at % 4}`, ['hall'], w.nodes[at % w.nodes.length]);
  await everywhere('/counts?namespace=/', ({ connections, users }) => connections === 6 && users === 4);
  await everywhere('/counts?namespace=/&room=hall', ({ connections }) => connections === 6);
  await everywhere('/counts?namespace=/&user=u1', ({ connections }) => connections === 2);
  await everywhere('/counts?namespace=/&room=nobody-here', ({ connections }) => connections === 0);
  await everywhere(`/counts?namespace=${q('/realtime')}`, ({ connections }) => connections === 0);
});

test('lists are paged, complete, and without copies', async () => {
  const clients = [];
  for (let at = 0; at < 25; at += 1) clients.push(await member(`p${at}`, [`room-${at}`, 'all'], w.nodes[at % w.nodes.length]));
  await everywhere('/counts?namespace=/&room=all', ({ connections }) => connections === 25);
  const pages = async (node, path) => {
    const items = [];
    let cursor = '';
    do {
      const page = await get(node, `${path}?namespace=/&limit=7${cursor && `&cursor=${q(cursor)}`}`);
      assert.ok(page.items.length <= 7);
      assert.equal(page.partial, false);
      items.push(...page.items);
      cursor = page.next;
    } while (cursor);
    return items;
  };
  const same = (one, other) => assert.deepEqual([...one].sort(), [...other].sort());
  for (const node of w.nodes) {
    same((await pages(node, '/connections')).map(({ socketId }) => socketId), clients.map(({ id }) => id));
    same((await pages(node, '/rooms/all/members')).map(({ socketId }) => socketId), clients.map(({ id }) => id));
    same((await pages(node, '/users')).map(({ userId }) => userId), clients.map(({ user }) => user));
    same((await pages(node, '/rooms')).map(({ name }) => name), ['all', ...clients.map((_, at) => `room-${at}`)]);
  }
});

describe('acts', () => {
  const act = async (what, body, node = first) => {
    const reply = await node.api('POST', `/api/v1/${what}`, { namespace: '/', ...body });
    assert.equal(reply.status, 202, JSON.stringify(reply.body));
  };
  let notices = 0;
  const notice = async (client, room) => {
    notices += 1;
    const number = notices;
    await first.emit({ namespace: '/', rooms: [room], event: 'notice', args: [number] });
    return (await client.drain(first)).filter(([event, value]) => event === 'notice' && value === number).length;
  };

  test('join and leave, by user, by socket, by room', async () => {
    const [alice, bob] = [await member('alice', ['start']), await member('bob', ['start'])];
    await act('join', { users: ['alice'], room: 'x1' });
    await act('join', { sockets: [bob.id], room: 'x2' });
    await act('join', { rooms: ['start'], room: 'x3' });
    const inside = async () => [
      await notice(alice, 'x1'),
      await notice(bob, 'x1'),
      await notice(alice, 'x2'),
      await notice(bob, 'x2'),
      await notice(alice, 'x3'),
      await notice(bob, 'x3'),
    ];
    await eventually('they are in', async () => (await inside()).join() === '1,0,0,1,1,1');
    await act('leave', { users: ['alice', 'bob'], room: 'x3' });
    await eventually('they are out', async () => (await inside()).join() === '1,0,0,1,0,0');
  });

  test('disconnect: by user for good, or with the connection, so that the client returns', async () => {
    const [alice, bob] = [await member('alice', []), await member('bob', [])];
    await act('disconnect', { users: ['alice'] });
    assert.equal(await alice.ended(), 'io server disconnect');
    await act('disconnect', { sockets: [bob.id], close: true });
    assert.match(await bob.ended(), /transport (close|error)/);
  });

  test('nobody is never everybody', async () => {
    const reply = await first.api('POST', '/api/v1/disconnect', { namespace: '/' });
    assert.equal(reply.status, 422);
  });
});

test('a publish with an id happens once, through whichever node', async () => {
  const alice = await member('alice', ['once']);
  const body = { contract: 'chat', event: 'message', data: { from: 's', room: 'once', content: 'c', type: 't' }, id: 'i-1' };
  const answers = [];
  for (const node of [...w.nodes, ...w.nodes]) {
    const { status, body: answer } = await node.api('POST', '/api/v1/events', body);
    assert.equal(status, 202);
    answers.push(answer.duplicate ?? false);
  }
  assert.deepEqual(answers, answers.map((_, at) => at > 0));
  assert.equal((await alice.drain(last)).length, 1);
});

test('the API describes itself', async () => {
  const { body } = await first.api('GET', '/api/v1/openapi.json', undefined, { key: null });
  like([body.openapi.slice(0, 3), body.info.title], ['3.1', text]);
  assert.ok(Object.keys(body.paths).length >= 10);
});
