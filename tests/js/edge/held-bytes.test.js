// What a node keeps for clients is limited in bytes: events that wait for a slow hook, metadata, and answers to PINGs.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { Backend } from '../harness/backend.js';
import { eventually } from '../harness/eventually.js';
import { Node } from '../harness/node.js';
import { temporary } from '../harness/process.js';
import { frame, upgradeRequest } from '../harness/raw.js';
import { world } from '../harness/world.js';

const file = join(temporary('held'), 'held.toml');
writeFileSync(
  file,
  `
name = "held"
[errors]
event = "failed"
[client.slow]
call = "backend"
[client.note]
metadata = "payload"
[client.now]
ack = { success = true }
`,
);
const MB = 1_000_000;
const NODE_BYTES = 16 * MB;
const limits = `[limits]\nmax_pending_bytes = "4MB"\nmax_pending_bytes_per_node = "16MB"\n`;
const backend = await Backend.start();
const w = await world({ contracts: [file], toml: backend.toml('backend', 'timeout = "60s"\n') + limits });
after(() => backend.stop());
afterEach(() => w.clear());

const resident = (node = w.b) => {
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${node.process.child.pid}/status`, 'utf8'));
  return Number(kib) * 1024;
};
const refused = (reason) => w.b.metric('roomcast_events_not_queued_total', { reason });

test('events behind a slow hook: for each client and for the node', async () => {
  let release = false;
  backend.answer = async () => {
    await eventually('the test lets go', () => release, 120_000);
    return { ok: true };
  };
  const before = resident();
  const clients = [];
  for (let at = 0; at < 6; at += 1) clients.push(await w.connect({ user: `u${at}` }));
  const codes = new Map();
  let acks = 0;
  const EACH = 40;
  const flood = (client) => {
    for (let at = 0; at < EACH; at += 1) {
      client.socket.emit('slow', 'x'.repeat(900_000), (ack) => {
        acks += 1;
        const code = ack.success ? 'ok' : ack.error.code;
        codes.set(code, (codes.get(code) ?? 0) + 1);
      });
    }
  };
  flood(clients[0]);
  await eventually('the rest of the first client is refused', () => acks >= EACH - 6, 30_000);
  assert.ok((await refused('client_bytes')) > 0, 'a client');
  clients.slice(1).forEach(flood);
  // The node has refused all events at once, except the events that wait for the hook.
  await eventually('the rest is refused', () => acks >= clients.length * (EACH - 6), 60_000);
  assert.deepEqual([...codes.keys()], ['OVERLOADED']);
  assert.ok((await refused('node_bytes')) > 0, 'the node');
  assert.equal(await refused('client_events'), 0);
  const held = await w.b.metric('roomcast_events_pending_bytes');
  assert.ok(held > 4 * MB && held <= NODE_BYTES, `${held}`);
  const grown = resident() - before;
  assert.ok(grown < 150 * MB, `${clients.length * EACH * 0.9} MB were sent, ${grown / MB} MB are kept`);
  // A client without waiting events is not affected.
  assert.equal((await (await w.connect({ user: 'other' })).ask('now')).success, true);
  release = true;
  await eventually('all are answered', () => acks === clients.length * EACH, 60_000);
  assert.ok(codes.get('ok') > 0);
  await eventually('nothing is held', async () => (await w.b.metric('roomcast_events_pending_bytes')) === 0);
});

test('metadata of a client, and what the API tells of it', async () => {
  const mallory = await w.connect({ user: 'mallory' });
  for (let at = 0; at < 40; at += 1) {
    const ack = await mallory.ask('note', { [`large${at}`]: 'x'.repeat(900_000) });
    assert.deepEqual([ack.success, ack.error?.code], [false, 'TOO_LARGE']);
  }
  for (let at = 0; at < 40; at += 1) await mallory.ask('note', { [`part${at}`]: 'x'.repeat(1000) });
  const { body } = await w.b.api('GET', `/api/v1/connections/${mallory.id}?namespace=/`);
  const bytes = JSON.stringify(body.metadata).length;
  assert.ok(bytes <= 16 * 1024 && bytes > 14_000, `${bytes}`);
});

/** Opens a WebSocket, upgraded from polling or not, whose client never connects to a namespace and stops reading. */
async function websocket(node, upgraded) {
  const { hostname, port } = new URL(node.url);
  const path = '/socket.io/?EIO=4&transport=';
  let sid = '';
  if (upgraded) sid = `&sid=${JSON.parse((await (await fetch(`${node.url}${path}polling`)).text()).slice(1)).sid}`;
  const socket = net.connect({ host: hostname, port });
  let came = '';
  const take = (part) => (came += part.toString('latin1'));
  socket.on('data', take).on('error', () => {}).on('close', () => (socket.over = true));
  socket.write(upgradeRequest(`${path}websocket${sid}`));
  await eventually('the WebSocket is open', () => came.startsWith('HTTP/1.1 101 '));
  if (upgraded) {
    socket.write(frame({ payload: Buffer.from('2probe') }));
    await eventually('the probe is answered', () => came.includes('3probe'));
    await (await fetch(`${node.url}${path}polling${sid}`)).text();
    socket.write(frame({ payload: Buffer.from('5') }));
  }
  socket.off('data', take).pause();
  return socket;
}

for (const upgraded of [false, true]) {
  test(`PINGs of a client that never reads, ${upgraded ? 'upgraded' : 'on a WebSocket'}`, async () => {
    const node = await Node.start({ contracts: ['embedded:chat'], toml: '[server]\nwrite_timeout = "6s"\n' });
    try {
      const pings = Buffer.concat(Array(2_000).fill(frame({ opcode: 9, payload: Buffer.alloc(125) })));
      const before = resident(node);
      const client = await websocket(node, upgraded);
      let [sent, grown] = [0, 0];
      // When the client has read nothing for 6 s, the node ends the connection and frees the memory of its answers.
      const more = () => {
        grown = Math.max(grown, resident(node) - before);
        return client.over || !client.writableNeedDrain;
      };
      while (sent < 40 * MB && !client.over) {
        if (!client.write(pings)) await eventually('more fits', more, 60_000);
        sent += pings.length;
      }
      client.destroy();
      assert.ok(grown < 8 * MB, `${sent / MB} MB of PINGs, ${grown / MB} MB are kept`);
    } finally {
      await node.stop();
    }
  });
}
