// Backends ask clients on any node, and get the acknowledgements of the official client's listeners.
import assert from 'node:assert/strict';
import { afterEach, describe, test } from 'node:test';
import { TRANSPORTS } from '../harness/client.js';
import { Node } from '../harness/node.js';
import { freeze } from '../harness/process.js';
import { world } from '../harness/world.js';

const w = await world({ contracts: ['embedded:chat'] });
const far = w.nodes.at(0);

afterEach(() => w.clear());

async function ask(body, node = far) {
  const reply = await node.api('POST', '/api/v1/ask', { namespace: '/', event: 'confirm', ...body });
  return { status: reply.status, ...reply.body };
}

/** A client that can be reached from every node, because its first event was answered. Being connected is not enough. */
async function reachable(user, options = {}, node = w.b) {
  const client = await w.connect({ user, ...options }, node);
  assert.equal((await client.ask('room:join', { room: 'all' })).success, true);
  return client;
}

/** A client that answers the event `confirm` with its user's name and the event's arguments. */
async function polite(user, options = {}, node = w.b) {
  const client = await reachable(user, options, node);
  client.socket.on('confirm', (...args) => args.pop()(user, ...args));
  return client;
}

for (const transport of Object.keys(TRANSPORTS)) {
  describe(`over ${transport}`, () => {
    test('a client is asked by its user, its socket and its room, wherever it is', async () => {
      const ada = await polite('ada', { transport });
      await ada.ask('room:join', { room: 'quiz' });
      for (const whom of [{ users: ['ada'] }, { sockets: [ada.id] }, { rooms: ['quiz'] }]) {
        for (const node of w.nodes) {
          const said = await ask({ ...whom, args: ['delete?', { id: 7 }] }, node);
          assert.equal(said.status, 200, JSON.stringify(said));
          assert.deepEqual(said.answers, [{ socketId: ada.id, args: ['ada', 'delete?', { id: 7 }] }]);
          assert.deepEqual([said.asked, said.notAsked, said.unanswered, said.tooLarge], [1, 0, 0, 0]);
          assert.deepEqual(said.missingNodes, []);
        }
      }
    });

    test('binary answers come in base64', async () => {
      const ada = await reachable('ada', { transport });
      ada.socket.on('confirm', (done) => done({ picture: Buffer.from([0, 255]) }));
      const { answers } = await ask({ users: ['ada'] });
      const args = [{ picture: { _placeholder: true, num: 0 } }];
      assert.deepEqual(answers, [{ socketId: ada.id, args, attachments: ['AP8='] }]);
    });
  });
}

test('of several clients each is asked once, those who are silent or go are counted, and nobody else waits for them', async () => {
  const clients = [await polite('ada'), await polite('ada', {}, far), await polite('bob')];
  const silent = await w.connect({ user: 'eve' });
  const leaving = await w.connect({ user: 'mallory' });
  leaving.socket.on('confirm', () => leaving.close());
  for (const client of [...clients, silent, leaving]) await client.ask('room:join', { room: 'quiz' });
  const began = Date.now();
  const said = await ask({ users: ['ada', 'nobody'], rooms: ['quiz'], timeout: '1s' });
  assert.ok(Date.now() - began < 5_000);
  assert.deepEqual(said.answers.map(({ socketId }) => socketId).toSorted(), clients.map(({ id }) => id).toSorted());
  assert.deepEqual([said.asked, said.unanswered, said.notAsked], [5, 2, 0]);
  const all = await ask({ users: ['bob'], timeout: '30s' });
  assert.equal(all.asked, 1);
  assert.ok(Date.now() - began < 10_000, 'nobody waits longer than the clients take');
  assert.equal((await ask({ users: ['nobody'], timeout: '30s' })).asked, 0);
});

test('beyond its bounds an API, a client, and a node for others, is not asked, and that is told', async () => {
  const silent = [];
  for (let n = 0; n < 10; n += 1) silent.push(await reachable(`silent-${n}`));
  const put = (count, node, whom) => {
    const one = (_, n) => ask({ sockets: [whom(n).id], timeout: '6s' }, node);
    return Promise.all(Array.from({ length: count }, one));
  };
  const one = () => silent[0];
  if (w.mode === 'memory') {
    const told = await put(300, w.b, one);
    const refused = told.filter(({ status }) => status === 503);
    assert.deepEqual([refused.length, refused[0].error.code], [44, 'OVERLOADED']);
    return;
  }
  const third = await Node.start({ contracts: ['embedded:chat'], redis: w.redis });
  try {
    const sums = async (first, second, whom) => {
      const told = (await Promise.all([put(150, first, whom), put(150, second, whom)])).flat();
      assert.deepEqual(told.filter(({ status }) => status !== 200), []);
      assert.deepEqual(told.flatMap(({ missingNodes }) => missingNodes), [], 'every node has told in time');
      return ['asked', 'notAsked', 'unanswered'].map((key) => told.reduce((sum, said) => sum + said[key], 0));
    };
    assert.deepEqual(await sums(w.b, far, one), [256, 44, 256], 'of one client');
    assert.deepEqual(await sums(third, far, (n) => silent[n % 10]), [256, 44, 256], 'for other nodes');
    assert.deepEqual(await sums(w.b, far, (n) => silent[n % 10]), [300, 0, 300], 'afterwards, and of several');
  } finally {
    await third.stop();
  }
});

test('nobody named, reserved names and too much patience are refused', async () => {
  assert.equal((await ask({})).status, 422);
  assert.equal((await ask({ users: ['ada'], event: 'disconnect' })).status, 422);
  assert.equal((await ask({ users: ['ada'], timeout: '31s' })).status, 422);
  assert.equal((await ask({ users: ['ada'], namespace: '/nowhere' })).status, 404);
});

test('while another node is gone without a word, what the others say is told, and who is missing', async () => {
  const ada = await polite('ada');
  if (w.mode === 'memory') {
    const said = await ask({ users: ['ada'] });
    assert.deepEqual([said.remote, said.answers.length], ['alone', 1]);
    return;
  }
  // A suspended node answers nothing, and the other node still counts it as alive.
  await freeze(far.process);
  try {
    const said = await ask({ users: ['ada'], timeout: '1s' }, w.b);
    assert.deepEqual(said.answers, [{ socketId: ada.id, args: ['ada'] }]);
    assert.deepEqual(said.missingNodes, [far.id]);
  } finally {
    far.process.child.kill('SIGCONT');
  }
});
