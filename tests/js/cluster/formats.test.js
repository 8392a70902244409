// The values that a node keeps in Redis are the frozen ones in tests/formats/, and a node reads the frozen ones. With
// FREEZE_FORMATS=1 the test writes the samples that do not exist yet; it never replaces a sample. docs/versions.md says
// when a format gets a new version.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { Node, ROOT } from '../harness/node.js';
import { Redis } from '../harness/redis.js';
import { credentials, impostor } from '../harness/returning.js';

const folder = join(ROOT, 'tests/formats');
const [namespace, FILE] = ['/formats', 'redis.json'];
const contracts = [join(ROOT, 'tests/js/fixtures/formats.toml')];
const backend = await Backend.start(() => ({ status: 503, body: {} }));
after(() => backend.stop());
const hook = backend.toml('backend', 'timeout = "1s"\nretries = 0\n');

const READ = {
  string: (redis, key) => redis.call('GET', key),
  hash: (redis, key) => redis.call('HGETALL', key),
  list: (redis, key) => redis.call('LRANGE', key, 0, -1),
  set: (redis, key) => redis.call('SMEMBERS', key),
  zset: (redis, key) => redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'),
  stream: (redis, key) => redis.call('XRANGE', key, '-', '+'),
};

const WRITE = {
  string: (key, value) => [['SET', key, value]],
  hash: (key, value) => [['HSET', key, ...value]],
  list: (key, value) => [['RPUSH', key, ...value]],
  set: (key, value) => [['SADD', key, ...value]],
  zset: (key, value) => value.flatMap((member, at) => (at % 2 ? [] : [['ZADD', key, value[at + 1], member]])),
  stream: (key, value) => value.map(([id, fields]) => ['XADD', key, id, ...fields]),
};

/** The keys of a Redis by the name of their format. */
async function dump(redis) {
  const formats = {};
  for (const key of await redis.keys()) {
    const [, format, version] = /^roomcast:(\w+):(v\d+):/.exec(key) ?? [];
    // The probe's key lives for seconds and only its own node reads it. An event that a throttle holds back is binary,
    // and src/publish/conflate.rs compares it with its sample.
    if (key.startsWith('roomcast:probe:') || key.endsWith(':held')) continue;
    assert.ok(format, `${key} has no version in its name`);
    const type = await redis.call('TYPE', key);
    (formats[`${format}.${version}`] ??= []).push({ key, type, value: await READ[type](redis, key) });
  }
  return formats;
}

/** A dump without what differs from run to run: ids, secrets, times. The order of members in sets and hashes, and of a session's rooms, does not matter. */
function masked(entries) {
  const text = (value) =>
    value
      .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'UUID')
      .replace(/\b\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')
      .replace(/[0-9a-f]{16,}/g, 'HEX')
      .replace(/\d{10,}/g, 'NUMBER')
      .replace(/[\w-]{43}(?![\w-])/g, 'DIGEST')
      .replace(/(?<![\w-])[\w-]{22}(?![\w-])/g, 'RANDOM')
      .replace(/(?<![\w-])(?=[\w-]*[A-Z0-9])[\w-]{16}(?![\w-])/g, 'SOCKET')
      .replace(/(writer)~[\w-]+/g, '$1~RUN')
      .replace(/\[\["(?:job|\$).*?\]\]/g, (rooms) => JSON.stringify(JSON.parse(rooms).sort()))
      .replace(/00-HEX-HEX-\d\d/g, 'TRACE');
  const mask = (value) => (Array.isArray(value) ? value.map(mask) : text(String(value)));
  const pairs = (list) => list.reduce((all, item, at) => (at % 2 ? all : [...all, [item, list[at + 1]]]), []);
  return entries
    .map(({ key, type, value }) => {
      const plain = mask(value);
      const sorted = { hash: () => pairs(plain).sort(), zset: () => pairs(plain).sort(), set: () => plain.sort() }[type];
      return { key: text(key), type, value: sorted ? sorted() : plain };
    })
    .sort((a, b) => (a.key < b.key ? -1 : 1));
}

const samples = () => readdirSync(folder).filter((name) => existsSync(join(folder, name, FILE)));
const sample = (name) => JSON.parse(readFileSync(join(folder, name, FILE), 'utf8'));

test('what a node writes is the frozen form', async () => {
  const redis = await Redis.start();
  const node = await Node.start({ contracts, redis, toml: hook, env: { ROOMCAST_NODE__ID: 'writer' } });
  await node.own(namespace, 'job:7', 'alice', '24h');
  const alice = await Client.connect(node, { namespace, user: 'alice', encoding: 'json', transport: 'websocket' });
  const gone = await Client.connect(node, { namespace, user: 'carol', encoding: 'json', transport: 'websocket' });
  assert.equal((await alice.ask('watch', { jobId: '7', metadata: { name: 'Alice' } })).success, true);
  assert.equal((await alice.ask('status', 'away')).success, true);
  const publish = (event, data, id) => node.api('POST', '/api/v1/events', { contract: 'formats', event, data, id });
  assert.equal((await publish('moved', { jobId: '7', n: 1.5 }, 'one')).status, 202);
  for (const n of [1, 2]) assert.equal((await publish('progress', { jobId: '7', n })).status, 202);
  assert.equal((await node.api('POST', '/api/v1/revocations', { users: ['bob'], ttl: '24h' })).body.accepted, true);
  gone.close();
  await backend.expect('disconnect');
  const client = await eventually('the client has an offset', () => credentials(alice).offset && credentials(alice));
  const formats = await eventually('everything is written', async () => {
    const all = await dump(redis);
    return Object.keys(all).length >= 8 && JSON.stringify(all['recovery.v1'] ?? []).includes('job:7') && Object.keys(all);
  });
  for (const format of formats) {
    const path = join(folder, format, FILE);
    if (!existsSync(path) && process.env.FREEZE_FORMATS) {
      mkdirSync(join(folder, format), { recursive: true });
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      const entries = (await dump(redis))[format];
      writeFileSync(path, `${JSON.stringify({ at: Date.now(), client, entries }, undefined, 1)}\n`);
    }
    assert.ok(existsSync(path), `${format} has no sample; docs/versions.md says how to make one`);
    const frozen = masked(sample(format).entries);
    // Presence is written a moment after the client was answered.
    await eventually(`${format} is written as it is frozen, or else it needs a new version`, async () => {
      assert.deepEqual(masked((await dump(redis))[format]), frozen);
      return true;
    });
  }
  assert.deepEqual(samples(), formats.sort(), 'every sample was written');
  alice.close();
  await node.stop();
  await redis.stop();
});

test('what is frozen is read', async () => {
  const redis = await Redis.start();
  let client;
  for (const name of samples()) {
    const { at, client: frozen, entries } = sample(name);
    if (name.startsWith('recovery.')) client = frozen;
    // Times move to the present, so that nothing has expired.
    const moved = (value) =>
      Array.isArray(value) ? value.map(moved) : String(value).replace(/\b1[7-9]\d{11}\b/g, (time) => Number(time) + Date.now() - at);
    // The process that held a lease has ended, and so would its lease.
    for (const { key, type, value } of entries.filter(({ key }) => !key.endsWith(':lease'))) {
      for (const command of WRITE[type](key, moved(value))) await redis.call(...command);
      await redis.call('PEXPIRE', key, 600_000);
    }
  }
  backend.answer = () => ({ ok: true });
  backend.requests.length = 0;
  const node = await Node.start({ contracts, redis, toml: hook });
  const [notice] = await backend.expect('disconnect');
  assert.equal(notice.data.user.id, 'carol', 'a notice');
  const again = { contract: 'formats', event: 'moved', data: { jobId: '7', n: 1.5 }, id: 'one' };
  assert.equal((await node.api('POST', '/api/v1/events', again)).body.duplicate, true, 'the id of a publish');
  const history = await node.api('GET', `/api/v1/rooms/job:7/history?namespace=${namespace}`);
  assert.ok(JSON.stringify(history.body).includes('"moved"'), `a history: ${JSON.stringify(history.body)}`);
  await assert.rejects(Client.connect(node, { namespace, user: 'bob' }), 'a revocation');
  const alice = await Client.connect(node, { namespace, user: 'alice' });
  assert.equal((await alice.ask('watch', { jobId: '7' })).success, true, 'an owner');
  const user = await node.api('GET', `/api/v1/users/alice?namespace=${namespace}`);
  assert.ok(JSON.stringify(user.body).includes('away'), `a status: ${JSON.stringify(user.body)}`);
  const back = await impostor(node, client, { namespace, user: 'alice', encoding: 'json' });
  assert.equal(back.socket.recovered, true, 'a session');
  alice.close();
  back.close();
  await node.stop();
  await redis.stop();
});

test('a message of another version is ignored, counted and logged', async () => {
  const redis = await Redis.start();
  const node = await Node.start({ contracts, redis, toml: hook });
  const unreadable = async () => await node.metric('roomcast_cluster_dropped_total', { reason: 'unreadable' });
  assert.equal(await unreadable(), 0);
  // A frame begins with "rc" and its version.
  for (const channel of ['control', `events:${namespace}`, 'canary']) {
    await redis.call('SPUBLISH', `roomcast:${channel}`, `rc${String.fromCharCode(9)}${'x'.repeat(60)}`);
  }
  await eventually('all three are counted', async () => (await unreadable()) === 3);
  assert.ok(node.process.lines.some(({ text }) => text.includes('has version 9')), 'the log names the version');
  const alice = await Client.connect(node, { namespace, user: 'alice' });
  assert.equal((await alice.ask('status', 'here')).success, true);
  alice.close();
  await node.stop();
  await redis.stop();
});
