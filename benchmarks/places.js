// Measures the cost of recovery (docs/recovery.md): `node benchmarks/places.js` sends events to rooms, alternating
// between a namespace with recovery and one without. BENCH_BIN is the node's binary, BENCH_REPEAT (3) the number of
// runs.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Node, ROOT } from '../tests/js/harness/node.js';
import { temporary } from '../tests/js/harness/process.js';

process.env.JS_TEST_BIN ??= process.env.BENCH_BIN;
const WebSocket = createRequire(new URL('../tests/js/package.json', import.meta.url))('ws');
const REPEAT = Number(process.env.BENCH_REPEAT ?? 3);
const EVENTS = 400;
const PAD = 'x'.repeat(64);
// Each client is in `each` rooms at the same time. One member of each room sends events, `rate` per second over all
// rooms.
const SHAPES = [
  { name: 'a room of 500', clients: 500, rooms: 1, each: 1, rate: 50 },
  { name: '50 rooms of 10', clients: 500, rooms: 50, each: 1, rate: 500 },
  { name: '50 rooms of 30, three for each client', clients: 500, rooms: 50, each: 3, rate: 500 },
];

const plain = readFileSync(join(ROOT, 'benchmarks/contracts/bench.toml'), 'utf8');
const folder = temporary('places');
const contract = (name, text) => {
  const file = join(folder, `${name}.toml`);
  writeFileSync(file, text);
  return file;
};
const KINDS = {
  plain: contract('plain', plain),
  recoverable: contract('recoverable', `${plain}\n[recovery]\nwindow = "2m"\nevents = 256\n`),
};

async function member(node, rooms, heard) {
  const socket = new WebSocket(`${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`, { perMessageDeflate: false });
  await new Promise((resolve, reject) => {
    let joined = 0;
    socket.on('error', reject);
    socket.on('message', (data) => {
      const text = String(data);
      if (text.startsWith('42["said"')) heard.count += 1;
      else if (text[0] === '0') socket.send('40');
      else if (text === '2') socket.send('3');
      else if (text.startsWith('40')) rooms.forEach((room, at) => socket.send(`42${at}["join","${room}"]`));
      else if (text.startsWith('43') && (joined += 1) === rooms.length) resolve();
    });
  });
  return socket;
}

/** Microseconds of the node's processor time per delivery. */
async function measure(file, { clients, rooms, each, rate }) {
  const node = await Node.start({ contracts: [file], env: { ROOMCAST_SERVER__ENGINE: 'native', ROOMCAST_SERVER__QUEUE: '4096' } });
  const heard = { count: 0 };
  const members = [];
  while (members.length < clients) {
    const own = Array.from({ length: each }, (_, more) => `r${(members.length + more * 17) % rooms}`);
    members.push(await member(node, own, heard));
  }
  const cpu = async () => await node.metric('process_cpu_seconds_total');
  const [events, size] = [(EVENTS * rate) / 50, (clients * each) / rooms];
  const before = await cpu();
  const began = Date.now();
  for (let n = 0; n < events; n += 1) {
    const room = n % rooms;
    members[room].send(`42["say","r${room}",${n},"${PAD}"]`);
    const ahead = began + (n * 1_000) / rate - Date.now();
    if (ahead > 2) await new Promise((resolve) => setTimeout(resolve, ahead));
  }
  const until = Date.now() + 20_000;
  while (heard.count < events * size && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 20));
  const used = (await cpu()) - before;
  members.forEach((socket) => socket.terminate());
  await node.stop('SIGKILL');
  if (heard.count !== events * size) throw new Error(`${heard.count} of ${events * size} arrived`);
  return (used * 1e6) / heard.count;
}

for (const shape of SHAPES) {
  const figures = { plain: [], recoverable: [] };
  for (let turn = 0; turn < REPEAT; turn += 1) {
    for (const [kind, file] of Object.entries(KINDS)) figures[kind].push(await measure(file, shape));
  }
  const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
  const [without, with_] = [median(figures.plain), median(figures.recoverable)];
  const all = Object.values(figures).map((list) => list.map((us) => us.toFixed(2)).join(' '));
  console.log(`${shape.name}: ${without.toFixed(2)} µs a delivery, recoverable ${with_.toFixed(2)} (${(with_ / without).toFixed(2)}×) [${all.join(' | ')}]`);
}
process.exit(0);
