// The members of rooms: announced, listed, counted, and used in rules.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const namespace = '/members';
const contracts = [join(ROOT, 'tests/js/fixtures/members.toml')];
const toml = '[presence]\nheartbeat = "500ms"\n';
const w = await world({ contracts, toml });
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
const open = (node = last, options = {}) => w.connect({ namespace, ...options }, node);
const named = async (name, board, node) => {
  const client = await open(node);
  return Object.assign(client, { entered: await client.ask('enter', { board, me: { name } }) });
};
let boards = 0;
const newBoard = () => `b${(boards += 1)}`;
const of = (client, ...events) => client.inbox.filter(([event]) => events.includes(event));
const payloads = (client, event) => of(client, event).map(([, payload]) => payload);
/** Waits until the newest list that the client got has these names, in order of their joins. */
const listed = (client, names, count = names.length) =>
  eventually(`${names} are listed`, () => {
    const newest = payloads(client, 'users').at(-1);
    return newest?.count === count && newest.users.map(({ name }) => name).join() === names.join();
  });

afterEach(() => w.clear());

describe('sockets as members', () => {
  test('the first is told so, later ones get the others, and each join is announced to the others only', async () => {
    const board = newBoard();
    const ann = await named('ann', board, first);
    assert.deepEqual(ann.entered, { count: 1, users: [{ id: ann.id, name: 'ann' }] });
    const bob = await named('bob', board, last);
    assert.deepEqual(bob.entered, { count: 2, users: [{ id: ann.id, name: 'ann' }, { id: bob.id, name: 'bob' }] });
    assert.deepEqual(of(ann, 'first', 'others'), [['first'], ['others', []]]);
    assert.deepEqual(of(bob, 'first', 'others'), [['others', [{ id: ann.id, name: 'ann' }]]]);
    await eventually('the join is announced', () => of(ann, 'came').length === 1);
    assert.deepEqual(payloads(ann, 'came'), [{ id: bob.id, user: null, name: 'bob', count: 2 }]);
    await listed(bob, ['ann', 'bob']);
    assert.deepEqual(payloads(bob, 'users').at(-1), { board, count: 2, users: [{ id: ann.id, name: 'ann' }, { id: bob.id, name: 'bob' }] });
    assert.deepEqual(of(bob, 'came'), []);
    assert.deepEqual(await ann.ask('exit', board), { left: 1 });
    await eventually('the leave is announced', () => of(bob, 'went').length === 1);
    assert.deepEqual(payloads(bob, 'went'), [{ id: ann.id, name: 'ann', count: 1 }]);
    await listed(bob, ['bob']);
  });

  test('exactly one of several that join at once is the first, on any node', async () => {
    for (let round = 0; round < 5; round += 1) {
      const board = newBoard();
      const guests = await Promise.all(Array.from({ length: 8 }, (_, at) => open(at % 2 ? first : last)));
      await Promise.all(guests.map((guest) => guest.ask('enter', { board })));
      assert.equal(guests.filter((guest) => of(guest, 'first').length === 1).length, 1);
    }
  });

  test('two sockets of a user are two members', async () => {
    const board = newBoard();
    const [one, two] = [await open(first, { user: 'alice' }), await open(last, { user: 'alice' })];
    await one.ask('enter', { board });
    assert.deepEqual(await two.ask('enter', { board }), { count: 2, users: [{ id: one.id }, { id: two.id }] });
    await eventually('the join is announced', () => of(one, 'came').length === 1);
    assert.deepEqual(payloads(one, 'came'), [{ id: two.id, user: 'alice', count: 2 }]);
  });

  test('many joins in a short time give few lists; a list has at most `most` members, and the whole count', async () => {
    const board = newBoard();
    const watcher = await named('w', board, first);
    await listed(watcher, ['w']);
    const before = of(watcher, 'users').length;
    await Promise.all(Array.from({ length: 20 }, (_, at) => named(`n${at}`, board, at % 2 ? first : last)));
    await eventually('all are counted', () => payloads(watcher, 'users').at(-1).count === 21);
    assert.equal(payloads(watcher, 'users').at(-1).users.length, 4);
    await eventually('joins are not conflated', () => of(watcher, 'came').length === 20);
    assert.ok(of(watcher, 'users').length - before < 20, `${of(watcher, 'users').length - before} lists`);
  });

  test('a new name gives a new list', async () => {
    const board = newBoard();
    const [ann, bob] = [await named('ann', board, first), await named('bob', board, last)];
    await listed(ann, ['ann', 'bob']);
    await bob.ask('rename', { name: 'bobby' });
    await listed(ann, ['ann', 'bobby']);
    assert.deepEqual(of(ann, 'went'), []);
  });

  test('a member that disconnects, or that a backend moves, is listed where it is', async () => {
    const [board, other] = [newBoard(), newBoard()];
    const ann = await named('ann', board, first);
    const [bob, cid] = [await named('bob', board, last), await named('cid', board, last)];
    const dan = await named('dan', other, first);
    await listed(ann, ['ann', 'bob', 'cid']);
    bob.close();
    await listed(ann, ['ann', 'cid']);
    for (const [path, room] of [['leave', `board:${board}`], ['join', `board:${other}`]]) {
      const { status } = await first.api('POST', `/api/v1/${path}`, { namespace, sockets: [cid.id], room });
      assert.equal(status, 202);
    }
    await listed(ann, ['ann']);
    await listed(dan, ['dan', 'cid']);
    await eventually('both leaves are announced', () => of(ann, 'went').length === 2);
    assert.deepEqual(payloads(ann, 'went').map(({ name }) => name), ['bob', 'cid']);
  });

  test('only a member may ask who is there', async () => {
    const board = newBoard();
    const ann = await named('ann', board);
    assert.deepEqual(await ann.ask('who', board), { room: `board:${board}`, board, count: 1, users: [{ id: ann.id, name: 'ann' }] });
    const { error } = await (await open()).ask('who', board);
    assert.equal(error.code, 'AUTHORIZATION_FAILED');
  });

  test('a rule counts the members, and a relay tells their number', async () => {
    const board = newBoard();
    const ann = await named('ann', board, first);
    assert.deepEqual(await ann.ask('draw', { board, x: 1 }), { drawn: true });
    const bob = await named('bob', board, last);
    await ann.ask('draw', { board, x: 1.50 });
    await eventually('the stroke arrives', () => of(bob, 'draw').length > 0);
    assert.deepEqual(payloads(bob, 'draw'), [{ to: 2, x: 1.5, board }]);
  });
});

test('a greeting has a rule, too', async () => {
  const [guest, ann] = [await open(), await open(last, { user: 'ann' })];
  assert.deepEqual([await guest.drain(first), await ann.drain(first)], [[['guest']], []]);
});

describe('users as members', () => {
  test('a rule lets two users in, with any number of sockets, and the next when one has left', async () => {
    const table = newBoard();
    const [ann, phone] = [await open(first, { user: 'ann' }), await open(last, { user: 'ann' })];
    const [bob, cid] = [await open(last, { user: 'bob' }), await open(first, { user: 'cid' })];
    assert.deepEqual(await ann.ask('sit', table), { seats: 1, at: ['ann'] });
    assert.deepEqual(await bob.ask('sit', table), { seats: 2, at: ['ann', 'bob'] });
    assert.deepEqual(await phone.ask('sit', table), { seats: 2, at: ['ann', 'bob'] });
    assert.equal((await cid.ask('sit', table)).error.code, 'AUTHORIZATION_FAILED');
    await eventually('the join is announced', () => of(ann, 'sat').length === 2);
    assert.deepEqual(payloads(ann, 'sat'), ['ann', 'bob'].map((userId) => ({ userId, room: `table:${table}` })));
    bob.close();
    await eventually('the leave is announced', () => of(ann, 'stood').length === 1);
    assert.deepEqual(await cid.ask('sit', table), { seats: 2, at: ['ann', 'cid'] });
  });

  test('an anonymous socket is a member by itself', async () => {
    const table = newBoard();
    const one = await open(first);
    assert.deepEqual(await one.ask('sit', table), { seats: 1, at: [one.id] });
    await eventually('the join is announced', () => of(one, 'sat').length === 1);
    assert.deepEqual(payloads(one, 'sat'), [{ userId: null, socketId: one.id, room: `table:${table}` }]);
  });
});

if (w.redis) {
  test('a node that is killed, and one that leaves, take their members with them', async () => {
    const board = newBoard();
    const ann = await named('ann', board, first);
    for (const signal of ['SIGKILL', 'SIGTERM']) {
      const doomed = await Node.start({ contracts, redis: w.redis, toml });
      after(() => doomed.stop('SIGKILL'));
      const guests = (await Promise.all(Array.from({ length: 60 }, () => named('x', board, doomed)))).map(({ id }) => id);
      await listed(ann, ['ann', 'x', 'x', 'x'], 61);
      ann.inbox.length = 0;
      await doomed.stop(signal);
      await listed(ann, ['ann']);
      // Both nodes that are left announce leaves, so the list may arrive before the last of them.
      const went = () => payloads(ann, 'went').map(({ id }) => id).sort();
      await eventually('all leaves are announced', () => went().length >= guests.length);
      assert.deepEqual(went(), guests.sort(), signal);
      assert.equal((await ann.ask('who', board)).count, 1);
    }
  });
}
