// Security events are in the audit log, and secrets are not.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { WebSocket } from 'ws';
import { eventually } from '../harness/eventually.js';
import { API_KEY, Node, ROOT } from '../harness/node.js';
import { Redis } from '../harness/redis.js';
import { SECRET, capability, seconds, token } from '../harness/token.js';
import { Client } from '../harness/client.js';

const namespace = '/tokens';
const HOOK_SECRET = 'a-hook-secret-of-the-tests-0123456789';
const WRONG_KEY = 'a-wrong-api-key-of-the-tests-9876543210';
const CLUSTER_SECRET = 'a-cluster-secret-of-the-tests-0123456789';
const redis = await Redis.start();
const node = await Node.start({
  redis,
  contracts: [join(ROOT, 'tests/js/fixtures/tokens.toml')],
  env: {
    ROOMCAST_LOG__FORMAT: 'json',
    ROOMCAST_LOG__LEVEL: 'trace',
    ROOMCAST_SERVER__CORS_ORIGINS: 'https://app.example.com',
    ROOMCAST_LIMITS__EVENTS_PER_SOCKET: '50/s',
    ROOMCAST_LIMITS__MAX_SOCKETS_PER_USER: '5',
    ROOMCAST_HOOKS__X__URL: 'http://127.0.0.1:1/',
    ROOMCAST_HOOKS__X__SECRET: HOOK_SECRET,
    ROOMCAST_CLUSTER__LISTEN: '127.0.0.1:0',
    ROOMCAST_CLUSTER__SECRET: CLUSTER_SECRET,
  },
});
const said = [];
node.process.child.stderr.on('data', (data) => said.push(data));
after(async () => {
  await node.stop();
  await redis.stop();
});

const log = () => said.join('');
const records = () =>
  log()
    .split('\n')
    .filter((line) => line.includes('"roomcast::audit"'))
    .map((line) => JSON.parse(line));
const recorded = async (event, fields = {}) => {
  const fits = (record) =>
    record['audit.event'] === event && Object.entries(fields).every(([name, value]) => record[name] === value);
  return await eventually(`a record of ${event} ${JSON.stringify(fields)}`, () => records().find(fits));
};

test('security-relevant events are records with the fields of docs/audit.md', async () => {
  await assert.rejects(Client.connect(node, { namespace, token: token({ sub: 'ada', exp: seconds(-100) }) }));
  await recorded('token_rejected', { 'audit.reason': 'token_expired', 'client.ip': '127.0.0.1', 'client.nsp': namespace });
  await assert.rejects(Client.connect(node, { namespace }));
  await recorded('token_rejected', { 'audit.reason': 'token_missing' });
  const client = await Client.connect(node, { namespace, user: 'ada', claims: { jti: 'ada-1' } });
  await client.ask('serve');
  const who = { 'client.user': 'ada', 'client.socket': client.id };
  await recorded('join_refused', { ...who, 'client.room': 'staff', 'audit.reason': 'AUTHORIZATION_FAILED' });
  await client.ask('enter', { id: '1', capability: capability('own:2') });
  await recorded('capability_rejected', { 'client.user': 'ada', 'audit.reason': 'other_room', 'client.room': 'own:1' });
  await client.ask('token:refresh', token({ sub: 'eve' }));
  await recorded('refresh_refused', { ...who, 'audit.reason': 'AUTHORIZATION_FAILED' });
  await client.ask('token:refresh', token({ sub: 'ada', jti: 'ada-2' }));
  await recorded('token_refreshed', who);
  await fetch(`${node.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin: 'https://evil.example.com' } });
  await recorded('origin_refused', { 'client.ip': '127.0.0.1' });
  await node.api('GET', '/api/v1/connections', undefined, { key: WRONG_KEY });
  await recorded('api_denied', { 'http.status': 401, 'api.route': 'listConnections' });
  for (let n = 0; n < 120; n += 1) client.send('echo', n);
  await recorded('limit_hit', who);
  await node.api('POST', '/api/v1/revocations', { users: ['ada'] });
  await recorded('revoked', { 'client.user': 'ada', 'api.key': 'tests', 'audit.reason': 'revoked' });
  await recorded('session_ended', { ...who, 'audit.reason': 'revoked' });
  await recorded('api_call', { 'api.route': 'revoke', 'http.status': 202, 'api.key': 'tests' });
});

test('a user beyond its sockets, and a room lost by a newer token, are recorded', async () => {
  const all = [];
  for (let n = 0; n < 5; n += 1) all.push(await Client.connect(node, { namespace, user: 'una' }));
  await assert.rejects(Client.connect(node, { namespace, user: 'una' }));
  await recorded('connect_refused', { 'client.nsp': namespace, 'audit.reason': 'TOO_MANY_CONNECTIONS', 'client.ip': '127.0.0.1' });
  all.forEach((client) => client.close());
  const staff = await Client.connect(node, { namespace, user: 'bea', claims: { roles: ['staff'] } });
  assert.equal((await staff.ask('serve')).success, true);
  await staff.ask('token:refresh', token({ sub: 'bea' }));
  await recorded('room_lost', { 'client.user': 'bea', 'client.socket': staff.id, 'client.room': 'staff' });
  staff.close();
  await node.api('POST', '/api/v1/emit', { namespace, event: 'x', args: ['y'] });
  await recorded('api_publish', { 'api.key': 'tests', 'api.route': 'emit', 'http.status': 202 });
});

test('who uses the id of another session is recorded, and not with that id', async () => {
  const path = `${node.url}/socket.io/?EIO=4&transport=polling`;
  const headers = { authorization: `Bearer ${token({ sub: 'ada' })}` };
  const { sid } = JSON.parse((await (await fetch(path, { headers })).text()).slice(1));
  const own = `${path}&sid=${sid}`;
  await (await fetch(own, { method: 'POST', headers, body: `40${namespace},${JSON.stringify({ token: token({ sub: 'bound' }) })}` })).text();
  await eventually('it is connected', async () => (await (await fetch(own, { headers })).text()).includes('40'));
  assert.equal((await fetch(`${path}&sid=${sid}`, { headers: { authorization: 'Bearer x' } })).status, 400);
  const { 'client.socket': shown } = await recorded('binding_failed', { 'client.ip': '127.0.0.1' });
  assert.ok(shown && shown !== sid);
  assert.equal(log().includes(sid), false, 'the id on the wire is a secret');
});

test('a client that does not read an event that must not be lost is recorded', async () => {
  const socket = new WebSocket(`${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
  await new Promise((resolve) => socket.on('open', resolve));
  socket.send(`40${namespace},${JSON.stringify({ token: token({ sub: 'slow' }) })}`);
  await eventually('it is there', async () => (await node.metric('roomcast_users', { nsp: namespace })) > 0);
  await new Promise((resolve) => setTimeout(resolve, 200));
  socket.pause();
  const text = 'x'.repeat(400_000);
  for (let n = 0; n < 60 && !records().some((record) => record['audit.event'] === 'slow_disconnected'); n += 1) {
    await node.emit({ namespace, users: ['slow'], event: 'flood', args: [text] });
  }
  await recorded('slow_disconnected', { 'client.user': 'slow', 'client.nsp': namespace, 'client.ip': '127.0.0.1' });
  socket.terminate();
});

test('a request to cluster.listen that no node has sent is recorded', async () => {
  assert.equal((await fetch(`${node.clusterUrl}/socket.io/?EIO=4&transport=polling&sid=x`)).status, 401);
  await recorded('forward_refused', { 'audit.reason': 'malformed', 'client.ip': '127.0.0.1' });
});

test('every event of docs/audit.md was recorded', () => {
  const table = readFileSync(join(ROOT, 'docs/audit.md'), 'utf8').split('## Events')[1].split('\n## ')[0];
  const documented = [...table.matchAll(/^\| `([a-z_]+)` \| (?:warn|info|debug) \|/gm)].map(([, event]) => event);
  assert.ok(documented.length >= 16);
  const seen = new Set(records().map((record) => record['audit.event']));
  assert.deepEqual(documented.filter((event) => !seen.has(event)), []);
});

test('a flood writes a bounded number of records, and says how many it left out', async () => {
  const before = records().length;
  const rejected = token({ sub: 'ada', exp: seconds(-100) });
  const many = Array.from({ length: 400 }, () => node.api('GET', '/api/v1/rooms', undefined, { key: rejected }));
  const began = Date.now();
  await Promise.all(many);
  const took = (Date.now() - began) / 1000;
  const written = records().length - before;
  assert.ok(written <= 200 + 20 * (took + 1), `${written} records in ${took} s`);
  const suppressed = await node.metric('roomcast_audit_suppressed_total', { event: 'api_denied' });
  assert.ok(suppressed > 0);
});

test('no token, key or secret is in any log at any level, nor in the metrics', async () => {
  const bearer = token({ sub: 'gus' });
  const cookie = token({ sub: 'hal' });
  const query = token({ sub: 'ida' });
  const caps = capability('own:9', { sub: 'gus' });
  const forged = token({ sub: 'gus' }, { secret: 'another-secret-of-at-least-32-bytes!' });
  const kept = [];
  for (const transport of ['websocket', 'polling']) {
    const client = await Client.connect(node, { namespace, transport, token: bearer });
    kept.push(client);
    await client.ask('enter', { id: '9', capability: caps });
    await client.ask('enter', { id: '8', capability: caps });
    await client.ask('token:refresh', token({ sub: 'gus', n: transport }));
    await client.ask('token:refresh', forged);
    await assert.rejects(Client.connect(node, { namespace, transport, token: forged }));
    await Client.connect(node, { namespace, transport, extraHeaders: { authorization: `Bearer ${bearer}` } }).then((c) => kept.push(c));
    await assert.rejects(Client.connect(node, { namespace, transport, extraHeaders: { cookie: `session=${cookie}` } }));
    await assert.rejects(Client.connect(node, { namespace, transport, query: { token: query } }));
  }
  await node.api('POST', '/api/v1/emit', { namespace, event: 'x', args: ['y'] });
  await node.api('POST', '/api/v1/emit', { namespace, event: 'x' }, { key: WRONG_KEY });
  const { body: metrics } = await node.api('GET', '/metrics', undefined, { key: null });
  kept.forEach((client) => client.close());
  await new Promise((resolve) => setTimeout(resolve, 200));
  const everything = log() + metrics;
  assert.ok(everything.includes('roomcast_connections_opened_total') && log().length > 1000);
  // Only the signature of a token is secret, but a part of it would do harm, too.
  const secrets = { bearer, cookie, query, caps, forged };
  for (const [name, value] of Object.entries(secrets)) {
    const signature = value.split('.')[2];
    const at = everything.indexOf(signature.slice(0, 16));
    assert.equal(at, -1, `${name}: …${everything.slice(Math.max(0, at - 200), at + 40)}`);
    assert.equal(everything.indexOf(value.split('.')[1]), -1, `${name}'s claims`);
  }
  for (const secret of [SECRET, API_KEY, WRONG_KEY, HOOK_SECRET, CLUSTER_SECRET]) assert.equal(everything.indexOf(secret), -1);
});
