// Recovery with the official client: the same id, the same rooms, and the missed events once and in order. A session
// that is incomplete is never recovered.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { Chance } from '../harness/prng.js';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { comeBack, credentials, cut, had, impostor, numbers, range, vanish } from '../harness/returning.js';
import { ENGINE, world } from '../harness/world.js';

const fixture = (name) => join(ROOT, `tests/js/fixtures/${name}.toml`);
const namespace = '/back';
const backend = await Backend.start();
const w = await world({ contracts: ['back', 'brief', 'asked'].map(fixture), toml: backend.toml('backend') });
after(() => backend.stop());
const [first, last] = [w.nodes.at(0), w.nodes.at(-1)];
const PEOPLE = 200;
let logs = 0;
const newLog = () => `l${(logs += 1)}`;
const publish = (log, n, node = first, event = 'entry') => node.publish('back', event, { log, n });
const connect = (options = {}, node = last) => w.connect({ namespace, user: 'alice', ...options }, node);
const results = async (result, node = last) => await node.metric('roomcast_recoveries_total', { result });

afterEach(() => w.clear());

async function follower(log, options, node) {
  const client = await connect(options, node);
  assert.equal((await client.ask('follow', log)).success, true);
  return client;
}

if (ENGINE === 'native') {
  test('a client that was cut off gets its id, its rooms and what it missed', async () => {
    const [log, plain] = [newLog(), newLog()];
    const client = await follower(log);
    await client.ask('follow-plain', plain);
    await client.ask('whoami', { name: 'Al' });
    const { id } = client;
    await publish(log, 1);
    await had(client, 1);
    const before = await results('recovered');
    await cut(client);
    await publish(log, 2);
    await publish(plain, 3, last, 'note');
    await publish(log, 4, last);
    await first.emit({ namespace, users: ['alice'], event: 'direct', args: [{ n: 5 }] });
    await first.emit({ namespace, sockets: [id], event: 'direct', args: [{ n: 6 }] });
    await first.emit({ namespace, event: 'direct', args: [{ n: 7 }] });
    await first.publish('back', 'both', { log, n: 8 });
    client.send('say', { log, n: 'mine' });
    assert.equal(await comeBack(client), true);
    assert.equal(client.id, id);
    await publish(log, 9);
    await had(client, 4);
    const got = await client.drain(first);
    assert.deepEqual(numbers(got), [1, 2, 4, 9]);
    assert.deepEqual(numbers(got, 'note'), [3]);
    assert.deepEqual(numbers(got, 'direct').sort(), [5, 6, 7]);
    assert.deepEqual(numbers(got, 'both'), [8]);
    assert.equal((await results('recovered')) - before, 1);
    const { body } = await last.api('GET', `/api/v1/connections/${id}?namespace=${encodeURIComponent(namespace)}`);
    assert.equal(body.metadata?.name, 'Al');
  });

  test('what the client emitted while it was away arrives after; its own relays do not come back to it', async () => {
    const log = newLog();
    const [client, other] = [await follower(log), await follower(log, { user: 'bob' })];
    client.send('say', { log, n: 1 });
    await had(other, 1, 'say');
    await cut(client);
    await publish(log, 2);
    client.send('say', { log, n: 3 });
    assert.equal(await comeBack(client), true);
    await had(other, 2, 'say');
    assert.deepEqual(numbers(await client.drain(first)), [2]);
    assert.deepEqual(numbers(client.inbox, 'say'), []);
  });

  test('strings at the end of events, and events without arguments, do not confuse the client', async () => {
    const log = newLog();
    const client = await follower(log);
    await publish(log, 1);
    await had(client, 1);
    await first.emit({ namespace, sockets: [client.id], event: 'text', args: ['r1:'] });
    await first.emit({ namespace, sockets: [client.id], event: 'bare', args: [], volatile: true });
    await eventually('the last event', () => client.inbox.some(([name]) => name === 'bare'));
    await cut(client);
    await publish(log, 2);
    assert.equal(await comeBack(client), true);
    assert.deepEqual(numbers(await client.drain(first)), [1, 2]);
  });

  test('a room that was left is not joined again, and nothing from before a join is shown', async () => {
    const log = newLog();
    const [client, late] = [await follower(log), await connect({ user: 'bob' })];
    await publish(log, 1);
    await had(client, 1);
    await late.ask('follow', log);
    await client.ask('unfollow', log);
    await Promise.all([cut(client), cut(late)]);
    await publish(log, 2);
    assert.deepEqual([await comeBack(client), await comeBack(late)], [true, true]);
    await publish(log, 3);
    await had(late, 2);
    assert.deepEqual(numbers(await client.drain(first)), [1]);
    assert.deepEqual(numbers(await late.drain(first)), [2, 3]);
  });

  test('what a room shows as it is joined is owed, too', async () => {
    const log = newLog();
    for (const n of range(1, 50)) await publish(log, n, first, 'told');
    const client = await connect();
    client.send('follow-shown', log);
    await had(client, 1, 'told');
    await cut(client);
    const recovered = await comeBack(client);
    await client.ask('follow-plain', log);
    if (recovered) assert.deepEqual(numbers(await client.drain(first), 'told'), range(1, 50));
  });

  test('a session that its node still takes for connected moves', async () => {
    for (const node of w.nodes) {
      const log = newLog();
      const client = await follower(log);
      const { id } = client;
      const end = await vanish(client);
      for (const n of range(1, 20)) await publish(log, n);
      assert.equal(await comeBack(client, node), true);
      assert.equal(client.id, id);
      assert.deepEqual(await had(client, 20), range(1, 20));
      await publish(log, 21);
      assert.deepEqual(await had(client, 21), range(1, 21));
      end();
      await eventually('one session is left', async () => {
        const { body } = await node.api('GET', `/api/v1/rooms/log:${log}?namespace=${encodeURIComponent(namespace)}`);
        return body.memberCount === 1 || body.member_count === 1;
      });
      await publish(log, 22);
      assert.deepEqual(await had(client, 22), range(1, 22));
    }
  });

  test('who went, or was sent away, gets a new session', async () => {
    const log = newLog();
    const client = await follower(log);
    const { id } = client;
    client.socket.disconnect();
    assert.equal(await comeBack(client), false);
    assert.notEqual(client.id, id);
    await client.ask('follow', log);
    const again = credentials(client);
    await last.api('POST', '/api/v1/disconnect', { namespace, sockets: [client.id] });
    await client.ended();
    const back = await impostor(last, again, { namespace, user: 'alice' });
    assert.equal(back.socket.recovered, false);
    back.close();
  });

  test('a client that a connect hook refuses as it comes back gets its session the next time', async () => {
    const log = newLog();
    const client = await w.connect({ namespace: '/asked', user: 'alice' }, last);
    const { id } = client;
    assert.equal((await client.ask('follow', log)).success, true);
    await first.publish('asked', 'entry', { log, n: 1 });
    await had(client, 1);
    await cut(client);
    backend.answer = () => ({ ok: false, error: { code: 'NOT_NOW', message: 'come back later' } });
    await assert.rejects(comeBack(client), /NOT_NOW|later/);
    await first.publish('asked', 'entry', { log, n: 2 });
    backend.answer = () => ({ ok: true });
    assert.equal(await comeBack(client, first), true);
    assert.equal(client.id, id);
    assert.deepEqual(await had(client, 2), [1, 2]);
  });

  test('a secret is good for its user only, and while the token holds', async () => {
    const log = newLog();
    const client = await follower(log);
    await publish(log, 1);
    await had(client, 1);
    await cut(client);
    const stolen = credentials(client);
    const thief = await impostor(last, stolen, { namespace, user: 'mallory' });
    const promoted = await impostor(last, stolen, { namespace, user: 'alice', claims: { roles: ['admin'] } });
    const guess = await impostor(last, { pid: 'x'.repeat(43) }, { namespace, user: 'alice' });
    for (const other of [thief, promoted, guess]) {
      assert.equal(other.socket.recovered, false);
      assert.deepEqual(numbers(other.inbox), []);
      other.close();
    }
    await assert.rejects(impostor(last, stolen, { namespace, user: 'alice', claims: { exp: 1 } }));
    assert.ok((await results('refused')) >= 2);
  });

  test('of two connections with one secret, one gets the session', async () => {
    for (let round = 0; round < 20; round += 1) {
      const client = await follower(newLog());
      await cut(client);
      const stolen = credentials(client);
      const twins = await Promise.all([1, 2].map(() => impostor(last, stolen, { namespace, user: 'alice' })));
      // The later of the two connections takes the session over while the earlier one still exists.
      await eventually('one of both has the session', () => {
        return twins.filter(({ socket }) => socket.connected && socket.recovered).length === 1;
      });
      twins.forEach((twin) => twin.close());
    }
  });

  test('a place that is not ours, or is from before the join, gives nothing away', async () => {
    const log = newLog();
    await publish(log, 1);
    const client = await follower(log);
    await publish(log, 2);
    await had(client, 1);
    const { offset } = credentials(client);
    const [, mark, epoch] = /^r1:(.{8})([0-9a-f]+)\./.exec(offset);
    await cut(client);
    client.socket._lastOffset = `r1:${mark}${epoch}.0`;
    assert.equal(await comeBack(client), true);
    assert.deepEqual(numbers(await client.drain(first)), [2, 2], 'from the join on');
    for (const rubbish of ['hello', 'r1!', `r1:${mark}!`]) {
      await cut(client);
      client.socket._lastOffset = rubbish;
      assert.equal(await comeBack(client), false);
      await client.ask('follow', log);
    }
  });

  test('too late, trimmed, or too much: a new session', async () => {
    const brief = await w.connect({ namespace: '/brief', user: 'alice' });
    await brief.ask('follow', 'l');
    await cut(brief);
    assert.equal(await comeBack(brief), true);
    await cut(brief);
    await new Promise((resolve) => setTimeout(resolve, 1_300));
    assert.equal(await comeBack(brief), false);

    const log = newLog();
    const client = await connect();
    await client.ask('follow-short', log);
    await publish(log, 1, first, 'small');
    await had(client, 1, 'small');
    await cut(client);
    for (const n of range(2, 6)) await publish(log, n, first, 'small');
    assert.equal(await comeBack(client), true);
    assert.deepEqual(numbers(await client.drain(first), 'small'), range(1, 6));
    await cut(client);
    for (const n of range(7, 12)) await publish(log, n, first, 'small');
    const before = await results('incomplete');
    assert.equal(await comeBack(client), false);
    assert.equal((await results('incomplete')) - before, 1);
    assert.deepEqual(numbers(await client.drain(first), 'small'), []);
  });

  test(`${PEOPLE} clients are cut off at random under traffic, and nobody lacks an event or has one twice`, async () => {
    const chance = new Chance();
    const rooms = [newLog(), newLog(), newLog()];
    const people = await Promise.all(
      range(1, PEOPLE).map(async (n) => {
        const client = await connect({ user: `u${n}` }, w.nodes[n % w.nodes.length]);
        client.rooms = rooms.filter((_, at) => at === n % 3 || chance.next() < 0.5);
        for (const log of client.rooms) await client.ask('follow', log);
        return client;
      }),
    );
    const sent = new Map(rooms.map((log) => [log, 0]));
    let stop = false;
    const traffic = rooms.map(async (log, at) => {
      // Each room has only one publisher, so that the order of its events is known.
      while (!stop) {
        await publish(log, sent.get(log) + 1, w.nodes[at % w.nodes.length]);
        sent.set(log, sent.get(log) + 1);
        await new Promise((resolve) => setTimeout(resolve, chance.int(2, 20)));
      }
    });
    let cuts = 0;
    const until = Date.now() + 5_000;
    const lives = people.map(async (client) => {
      await new Promise((resolve) => setTimeout(resolve, chance.int(0, 2_000)));
      while (Date.now() < until) {
        await cut(client);
        await new Promise((resolve) => setTimeout(resolve, chance.int(0, 500)));
        const recovered = await comeBack(client, chance.pick(w.nodes));
        assert.equal(recovered, true);
        cuts += 1;
        await new Promise((resolve) => setTimeout(resolve, chance.int(500, 2_000)));
      }
    });
    await Promise.all(lives);
    stop = true;
    await Promise.all(traffic);
    assert.ok(cuts >= PEOPLE, `${cuts} cuts`);
    for (const client of people) {
      for (const log of client.rooms) {
        const of = () => client.inbox.filter(([event, data]) => event === 'entry' && data.log === log).map(([, { n }]) => n);
        await eventually('everything has come', () => of().at(-1) === sent.get(log));
        assert.deepEqual(of(), range(1, sent.get(log)));
      }
    }
  });
}

for (const transport of ['websocket', 'polling', 'upgrade']) {
  test(`a client with the transport ${transport} gets its session back on our engine, and a new one on the library`, async () => {
    const client = await follower(newLog(), { transport });
    assert.equal(client.socket._pid !== undefined, ENGINE === 'native');
    await cut(client);
    assert.equal(Boolean(await comeBack(client)), ENGINE === 'native');
  });
}
