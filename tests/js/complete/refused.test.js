// A refused event has no effect: every feature of a client event is combined with every refusal that can follow it.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { eventually } from '../harness/eventually.js';
import { temporary } from '../harness/process.js';
import { world } from '../harness/world.js';

// Effects of an event, as lines of its contract. Each effect leaves a trace.
const DOES = {
  join: { join: ['"open"'] },
  'join hook': { join: ['"asked"'] },
  leave: { leave: ['"home"'] },
  relay: { relay: ['{ room = "lobby", event = "relayed" }'] },
  presence: { presence: '"payload.status"' },
  metadata: { metadata: '"payload.metadata"' },
  reply: { reply: ['"replied"'] },
  call: { call: '"backend"' },
};
// The reasons for a refusal, each with the payload that triggers it.
const REFUSES = {
  'a room without a name': { lines: { join: ['"unnamed"'] }, code: 'INVALID_ROOM' },
  'the rule of a room': { lines: { join: ['"closed"'] }, code: 'AUTHORIZATION_FAILED' },
  'the hook of a room': { lines: { join: ['"forbidden"'] }, code: 'GO_AWAY' },
  'a room to leave without a name': { lines: { leave: ['"unnamed"'] }, code: 'INVALID_ROOM' },
  'a relay to a room that the client is not in': {
    lines: { relay: ['{ room = "closed", member = true, event = "relayed" }'] },
    code: 'AUTHORIZATION_FAILED',
  },
  'a relay to nobody': { lines: { relay: ['{ to = "payload.to", event = "relayed" }'] }, code: 'INVALID_PAYLOAD' },
  require: { lines: { require: '"false"' }, code: 'AUTHORIZATION_FAILED' },
  'a status that is too large': {
    lines: { presence: '"payload.status"' },
    payload: { status: 'x'.repeat(2000) },
    code: 'INVALID_PAYLOAD',
  },
  'metadata that is too large': {
    lines: { metadata: '"payload.metadata"' },
    payload: { metadata: { more: 'x'.repeat(17_000) } },
    code: 'TOO_LARGE',
  },
  'what a publish needs': {
    lines: { call: '"backend"', on_ok: '{ publish = "strict", data = { number = "{payload.status}" } }' },
    code: 'INVALID_PAYLOAD',
  },
  'the hook of the event': { lines: { call: '"backend"' }, payload: { refuse: true }, code: 'GO_AWAY' },
};

const pairs = Object.entries(DOES).flatMap(([does, lines]) =>
  Object.entries(REFUSES).flatMap(([refuses, refusal]) => {
    const clash = Object.keys(refusal.lines).some((key) => key in lines && !Array.isArray(lines[key]));
    return clash && does !== 'call' ? [] : [{ does, refuses, ...refusal, lines: merge(lines, refusal.lines) }];
  }),
);

function merge(does, refuses) {
  const keys = new Set([...Object.keys(does), ...Object.keys(refuses)]);
  const both = (key) => (Array.isArray(does[key]) ? [...does[key], ...(refuses[key] ?? [])] : (refuses[key] ?? does[key]));
  return Object.fromEntries([...keys].map((key) => [key, both(key)]));
}

const HEAD = `
name = "refused"
[errors]
event = "failed"
[connect]
join = ["lobby", "home", "guarded"]
[rooms]
lobby     = { name = "lobby" }
home      = { name = "home" }
open      = { name = "open" }
asked     = { name = "asked", call = "backend" }
guarded   = { name = "guarded", call = "backend" }
closed    = { name = "closed", join = "false" }
forbidden = { name = "forbidden", call = "backend" }
unnamed   = { name = "unnamed:{missing}" }
numbered  = { name = "number:{long}" }
[server.news]
rooms = "lobby"
[server.strict]
rooms  = "lobby"
schema = { type = "object", properties = { number = { type = "number" } } }
[client.plain]
call = "backend"
[client.named]
payload = { args = ["first", "second"], default = { third = 3 } }
call    = "backend"
[client.short]
payload = { shorthand = "id" }
call    = "backend"
[client.added]
relay = { room = "lobby", event = "relayed", add = { at = 1 } }
[client.numbers]
payload = { args = ["first", "second"] }
require = 'payload.first.n == 1.5 && payload.first.e == 100 && payload.second[0].n == 0'
join    = { room = "numbered", with = { long = "payload.first.long" } }
ack     = { all = "{payload.first}", one = "{payload.second.0.n}", text = "{payload.first.n} of {payload.first.long}" }
[server.filled]
rooms = "lobby"
fill  = { at = 1 }
[server.copied]
rooms = "numbered"
fill  = { copy = "{payload.n}" }
`;
const events = pairs.map(({ does, refuses, lines }) => {
  const list = Object.entries(lines).map(([key, value]) => `${key} = ${Array.isArray(value) ? `[${value.join(', ')}]` : value}`);
  return `[client."${does}, ${refuses}"]\npayload = { schema = { type = "object" } }\n${list.join('\n')}\n`;
});
const file = join(temporary('refused'), 'refused.toml');
writeFileSync(file, HEAD + events.join(''));

const asks = { reply: [{ event: 'told' }], join: ['open'], leave: ['home'], publish: [{ event: 'news' }], metadata: { a: 1 } };
const backend = await Backend.start();
backend.answer = ({ type, data }) => {
  if (type === 'io.roomcast.join' && data.room === 'guarded') return data.user.id === 'guard' ? { ok: true } : { ok: false };
  if (data.room === 'forbidden' || data.payload?.refuse) return { ok: false, error: { code: 'GO_AWAY', message: 'no' } };
  return { ok: true, ttl: 60, ...asks };
};
const w = await world({ contracts: [file], toml: backend.toml('backend') });
after(() => backend.stop());

/** All state of a client that an event could have changed. */
const state = async ({ id, user }) => {
  const { body } = await w.b.api('GET', `/api/v1/connections/${id}?namespace=/`);
  const { body: one } = await w.b.api('GET', `/api/v1/users/${user}?namespace=/`);
  return { rooms: body.rooms, metadata: body.metadata, status: one.status };
};

describe('an event that is refused has done nothing', async () => {
  const watcher = await w.connect({ user: 'watcher' });
  const alice = await w.connect({ user: 'alice' });
  const before = { rooms: ['home', 'lobby'], metadata: {}, status: null };
  await eventually('the rooms of connect.join are joined', async () => (await state(alice)).rooms.length === 2);
  for (const { does, refuses, payload, code } of pairs) {
    test(`${does}, then ${refuses}`, async () => {
      const ack = await alice.ask(`${does}, ${refuses}`, { status: 'away', metadata: { b: 2 }, ...payload });
      assert.deepEqual([ack.success, ack.error?.code], [false, code], JSON.stringify(ack));
      assert.deepEqual(await alice.drain(), []);
      assert.deepEqual(await watcher.drain(), []);
      assert.deepEqual(await state(alice), before);
    });
  }

  test('and the same features without a refusal do all of it', async () => {
    const ack = await alice.ask('plain', { status: 'away' });
    assert.equal(ack.success, true);
    const names = (await alice.drain()).map(([name]) => name).sort();
    assert.deepEqual(names, ['news', 'told']);
    assert.deepEqual(await state(alice), { rooms: ['lobby', 'open'], metadata: { a: 1 }, status: null });
  });

  test('a room of connect.join is joined when its hook agrees', async () => {
    const guard = await w.connect({ user: 'guard' });
    await eventually('the guard is in', async () => (await state(guard)).rooms.includes('guarded'));
    assert.ok(!(await state(alice)).rooms.includes('guarded'));
  });
});

describe('what a hook is told', () => {
  const bytes = Buffer.from([1, 2, 255]);
  const told = async (...event) => {
    const someone = await w.connect({ user: `u${Math.random()}` });
    assert.equal((await someone.ask(...event)).success, true);
    return backend.of('event').at(-1).data;
  };

  test('all arguments, and attachments with their places', async () => {
    const { payload, args, attachments } = await told('plain', 1, { two: 2 }, bytes);
    assert.deepEqual([payload, args], [1, [1, { two: 2 }, { _placeholder: true, num: 0 }]]);
    assert.deepEqual(attachments, [bytes.toString('base64')]);
  });

  test('one argument is the payload alone', async () => {
    const { payload, args, attachments } = await told('plain', { file: bytes });
    assert.deepEqual([payload, args], [{ file: { _placeholder: true, num: 0 } }, undefined]);
    assert.equal(attachments.length, 1);
  });

  test('arguments with names, a shorthand, a default', async () => {
    assert.deepEqual((await told('named', 1, 2)).payload, { third: 3, first: 1, second: 2 });
    assert.deepEqual((await told('short', 'x')).payload, { id: 'x' });
    assert.deepEqual((await told('plain')).payload, null);
  });
});

describe('numbers keep their digits', () => {
  const LONG = '{"n":1.50,"long":123456789012345678901234567890,"e":1E+2}';

  test('to a hook: the payload and every argument', async () => {
    const { RawSession } = await import('../harness/raw.js');
    const raw = await RawSession.open(w.b);
    raw.send(`421["plain",${LONG},[1.10]]`);
    await raw.until('the ack', (packet) => packet.startsWith('431'));
    raw.send('422["short",2.50]');
    await raw.until('the ack', (packet) => packet.startsWith('432'));
    const bodies = backend.requests.slice(-2).map(({ raw: body }) => body);
    assert.ok(bodies[0].includes(`"payload":${LONG}`), bodies[0]);
    assert.ok(bodies[0].includes(`"args":[${LONG},[1.10]]`), bodies[0]);
    assert.ok(bodies[1].includes('"payload":{"id":2.50}'), bodies[1]);
    raw.close();
  });

  test('from a hook: ack, reply and publish, filled in or not; and in a relay with added members', async () => {
    const { RawSession } = await import('../harness/raw.js');
    const raw = await RawSession.open(w.b);
    const agreed = backend.answer;
    const publish = `[{"event":"news","data":${LONG}},{"event":"filled","data":${LONG}}]`;
    backend.answer = ({ type }) =>
      type === 'io.roomcast.event'
        ? { raw: `{"ack":${LONG},"reply":[{"event":"told","data":${LONG}}],"publish":${publish}}` }
        : { ok: true };
    raw.send('427["plain"]');
    await raw.until('the ack', (packet) => packet === `437[${LONG}]`);
    await raw.until('the reply', (packet) => packet === `42["told",${LONG}]`);
    await raw.until('the publish', (packet) => packet === `42["news",${LONG}]`);
    const added = LONG.replace('}', ',"at":1}');
    await raw.until('the publish that is filled in', (packet) => packet === `42["filled",${added}]`);
    raw.send(`42["added",${LONG}]`);
    await raw.until('the relay', (packet) => packet === `42["relayed",${added}]`);
    backend.answer = agreed;
    raw.close();
  });

  test('in templates, names of rooms and fill-ins; rules compare by value', async () => {
    const { RawSession } = await import('../harness/raw.js');
    const raw = await RawSession.open(w.b);
    raw.send(`421["numbers",${LONG},[{"n":-0}]]`);
    await raw.until('the ack', (packet) => packet === `431[{"all":${LONG},"one":-0,"text":"1.50 of 123456789012345678901234567890"}]`);
    const agreed = backend.answer;
    const data = (long) => `{"long":${long},"n":1.50}`;
    const publish = ['123456789012345678901234567890.0', '1e3', '123456789012345678901234567890'].map((long) => `{"event":"copied","data":${data(long)}}`);
    backend.answer = ({ type }) => (type === 'io.roomcast.event' ? { raw: `{"publish":[${publish}]}` } : { ok: true });
    raw.send('42["plain"]');
    const copied = (packet) => packet.startsWith('42["copied"');
    const first = await raw.until('the publish', copied);
    assert.equal(first, `42["copied",${data('123456789012345678901234567890').replace('}', ',"copy":1.50}')}]`);
    backend.answer = agreed;
    // Another spelling of a number names no room.
    for (const [id, long] of ['7.0', '7e0', '-0', '1.5'].entries()) {
      raw.send(`42${id}["numbers",{"n":1.5,"e":100,"long":${long}},[{"n":0}]]`);
      const refused = await raw.until('the refusal', (packet) => packet.startsWith(`43${id}[`));
      assert.ok(refused.includes('INVALID_ROOM'), refused);
    }
    raw.close();
  });
});
