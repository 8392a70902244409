// Idle memory, connect cost and fan-out of both engines beside Node's socket.io, in alternation. See README.md.
import { cpus, release, totalmem } from 'node:os';
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Client } from './client.js';
import { MeasuredServer, ROOMCAST, TARGETS } from './server.js';

const here = dirname(fileURLToPath(import.meta.url));
const number = (name, fallback) => Number(process.env[name] ?? fallback);
const REPEAT = number('BENCH_REPEAT', 3);
const IDLE = number('BENCH_IDLE', 10_000);
const SECONDS = number('BENCH_SECONDS', 5);
const PAD = 'x'.repeat(64);
const wanted = process.argv.slice(2);

async function open(address, count, heard) {
  const clients = [];
  while (clients.length < count) {
    const batch = Array.from({ length: Math.min(100, count - clients.length) }, (_, at) => {
      const index = clients.length + at;
      return Client.open(address, heard && ((...args) => heard(index, ...args)));
    });
    clients.push(...(await Promise.all(batch)));
  }
  return clients;
}

async function settle(done, what, ms = 60_000) {
  const until = Date.now() + ms;
  while (!done()) {
    if (Date.now() > until) throw new Error(`not within ${ms} ms: ${what}`);
    await sleep(20);
  }
}

/** KiB a connection in four states, and microseconds a connect. */
async function idle(server) {
  let heard = 0;
  await (await open(server.address, 50)).map((client) => client.close());
  await sleep(1000);
  const [rss, cpu] = [server.rss(), server.cpu()];
  const each = () => (server.rss() - rss) / IDLE;
  let clients = await open(server.address, IDLE, () => (heard += 1));
  const connect_us = (server.cpu() - cpu) / IDLE;
  await sleep(2000);
  const idle_kib = each();
  for (const [index, client] of clients.entries()) {
    await client.join(`own-${index}`);
    for (let n = 0; n < 64; n += 1) client.send(`42["say","own-${index}",${n}]`);
    if (index % 50 === 0) await settle(() => heard >= index * 64, 'the packets are back');
  }
  await settle(() => heard === IDLE * 64, 'all packets are back');
  await sleep(2000);
  const after_packets_kib = each();
  for (const client of clients) client.close();
  await sleep(3000);
  clients = await open(server.address, IDLE, () => {});
  await sleep(2000);
  const after_return_kib = each();
  for (const client of clients) client.close();
  return { idle_kib, after_packets_kib, after_return_kib, connect_us };
}

/** One event: its room, a number that grows, and when it was sent. */
const say = (client, room, n) => client.send(`42["say","${room}",${n},${performance.now().toFixed(3)},"${PAD}"]`);

/** What all clients hear: counted, in order, and how late. */
function ledger(count) {
  const last = new Int32Array(count).fill(-1);
  const book = { heard: 0, disordered: 0, late: [] };
  book.listen = (index, bytes, start, end) => {
    const [, , n, sent] = JSON.parse(bytes.latin1Slice(start, end));
    if (n !== last[index] + 1) book.disordered += 1;
    last[index] = n;
    book.heard += 1;
    if (book.heard % 16 === 0) book.late.push(performance.now() - sent);
  };
  return book;
}

function told(book, expected, cpu, started) {
  const late = book.late.sort((a, b) => a - b);
  return {
    delivery_us: cpu / book.heard,
    lost: expected - book.heard,
    disordered: book.disordered,
    p50_ms: late[Math.floor(late.length / 2)],
    p99_ms: late[Math.floor(late.length * 0.99)],
    deliveries_per_s: book.heard / ((performance.now() - started) / 1000),
  };
}

/** Rooms of some size; in each, one member speaks so often a second. */
async function rooms(server, { count, members, rate }) {
  const book = ledger(count * members);
  const clients = await open(server.address, count * members, book.listen);
  await Promise.all(clients.map((client, index) => client.join(`r${index % count}`)));
  await sleep(500);
  const [cpu, started] = [server.cpu(), performance.now()];
  let said = 0;
  const total = rate * SECONDS;
  while (said < total) {
    const due = Math.min(total, Math.floor(((performance.now() - started) / 1000) * rate));
    for (; said < due; said += 1) say(clients[said % count], `r${said % count}`, Math.floor(said / count));
    await sleep(4);
  }
  const expected = total * members;
  await settle(() => book.heard >= expected, 'everything arrives', 5000).catch(() => {});
  const result = told(book, expected, server.cpu() - cpu, started);
  for (const client of clients) client.close();
  return result;
}

/** One room; its speaker is never more than a window ahead of itself. */
async function saturated(server, { members, events, window }) {
  const book = ledger(members);
  let own = 0;
  const clients = await open(server.address, members, (index, ...rest) => {
    book.listen(index, ...rest);
    if (index === members - 1) own += 1;
  });
  await Promise.all(clients.map((client) => client.join('all')));
  await sleep(500);
  const [cpu, started] = [server.cpu(), performance.now()];
  for (let said = 0; said < events; ) {
    if (said - own < window) {
      say(clients[0], 'all', said);
      said += 1;
    } else await new Promise(setImmediate);
  }
  await settle(() => book.heard >= events * members, 'everything arrives', 10_000).catch(() => {});
  const result = told(book, events * members, server.cpu() - cpu, started);
  for (const client of clients) client.close();
  return result;
}

const SCENARIOS = {
  idle,
  'room of 1,000, 50/s': (server) => rooms(server, { count: 1, members: 1000, rate: 50 }),
  '200 rooms of 10, 2,000/s': (server) => rooms(server, { count: 200, members: 10, rate: 2000 }),
  'room of 1,000, saturated': (server) => saturated(server, { members: 1000, events: 2000, window: 32 }),
};

const runs = [];
for (let turn = 0; turn < REPEAT; turn += 1) {
  for (const [scenario, run] of Object.entries(SCENARIOS)) {
    for (const [target, how] of Object.entries(TARGETS)) {
      if (wanted.length && !wanted.some((part) => target.includes(part) || scenario.includes(part))) continue;
      const server = await MeasuredServer.start(how);
      try {
        await sleep(500);
        const figures = await run(server);
        runs.push({ turn, scenario, target, figures });
        console.log(`${turn + 1}/${REPEAT} ${scenario} · ${target}: ${JSON.stringify(figures, (_, v) => (typeof v === 'number' ? Math.round(v * 100) / 100 : v))}`);
      } finally {
        server.stop();
      }
    }
  }
}

// === results ===

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
const shown = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Math.round(value * 100) / 100));

function table(scenario) {
  const mine = runs.filter((run) => run.scenario === scenario);
  if (!mine.length) return '';
  const keys = Object.keys(mine[0].figures);
  const rows = Object.keys(TARGETS).map((target) => {
    const of = mine.filter((run) => run.target === target);
    if (!of.length) return undefined;
    const cells = keys.map((key) => {
      const values = of.map((run) => run.figures[key]);
      return `${shown(median(values))} (${shown(Math.min(...values))} to ${shown(Math.max(...values))})`;
    });
    return `| ${target} | ${cells.join(' | ')} |`;
  });
  return `## ${scenario}\n\n| | ${keys.join(' | ')} |\n| --- |${' --- |'.repeat(keys.length)}\n${rows.filter(Boolean).join('\n')}\n`;
}

const version = (command, ...args) => execFileSync(command, args).toString().trim();
const machine = {
  date: new Date().toISOString(),
  processors: `${cpus().length} × ${cpus()[0].model}`,
  memory_gib: Math.round(totalmem() / 2 ** 30),
  kernel: release(),
  node: process.version,
  socket_io: createRequire(import.meta.url)('socket.io/package.json').version,
  roomcast: version(ROOMCAST, '--version'),
  repeat: REPEAT,
};
const out = join(here, 'results');
mkdirSync(out, { recursive: true });
writeFileSync(join(out, 'results.json'), `${JSON.stringify({ machine, runs }, null, 1)}\n`);
const facts = Object.entries(machine).map(([key, value]) => `${key}: ${value}`).join(' · ');
const text = `# Results\n\nMedians of ${REPEAT} runs (least to most). Written by \`make bench\`.\n\n${facts}\n\n${Object.keys(SCENARIOS).map(table).filter(Boolean).join('\n')}`;
writeFileSync(join(out, 'results.md'), text);
console.log(`\n${text}`);
process.exit(0);
