// Volatile events reach only clients that can be written to: the official client with a paused socket.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { world } from '../harness/world.js';

const w = await world({ contracts: [join(ROOT, 'tests/js/fixtures/alone/volatile.toml')] });
const LARGE = 'x'.repeat(100_000);
const MOST = 400;

afterEach(() => w.clear());

const dropped = async (reason) => await w.b.metric('roomcast_deliveries_dropped_total', { reason });

const ways = {
  'a contract': async (n) => await w.a.publish('volatile', 'glimpse', { n, large: LARGE }),
  'the API': async (n) => await w.a.emit({ namespace: '/', rooms: ['hall'], event: 'glimpse', args: [{ n, large: LARGE }], volatile: true }),
};
if (w.redis) {
  const publisher = createClient({ url: w.redis.url });
  publisher.on('error', () => {});
  await publisher.connect();
  after(() => publisher.disconnect());
  const emitter = new Emitter(publisher);
  ways['an emitter'] = async (n) => emitter.to('hall').volatile.emit('glimpse', { n, large: LARGE });
}

for (const [who, send] of Object.entries(ways)) {
  test(`a paused client misses what ${who} sends, counted; a reading one gets all; both get what is not volatile`, async () => {
    const [paused, reading] = [await w.connect(), await w.connect()];
    for (const client of [paused, reading]) assert.equal((await client.ask('enter')).success, true);
    const before = await dropped('volatile');
    const tcp = paused.socket.io.engine.transport.ws._socket;
    tcp.pause();
    let sent = 0;
    while (sent < MOST && (await dropped('volatile')) < before + 5) {
      await send(sent);
      const [, { n }] = await reading.next();
      assert.equal(n, sent);
      sent += 1;
    }
    const missed = (await dropped('volatile')) - before;
    assert.ok(missed >= 5 && missed < sent, `${missed} of ${sent}`);
    assert.equal(await dropped('queue_full'), 0);
    await w.a.publish('volatile', 'firm', { last: true });
    tcp.resume();
    const numbers = [];
    for (let event = await paused.next(); event[0] !== 'firm'; event = await paused.next()) numbers.push(event[1].n);
    assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
    assert.equal(numbers.length, sent - missed);
    assert.deepEqual(await reading.next(), ['firm', { last: true }]);
    await eventually('it gets them again', async () => {
      await send(MOST);
      return paused.inbox.some(([, { n }]) => n === MOST);
    });
  });
}
