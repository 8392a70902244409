// Measures the cost of a scrape: `node benchmarks/scrape.js [CLIENTS]` opens this number of WebSockets, each in a room
// of its own and in one common room, and requests /metrics repeatedly. BENCH_BIN is the node's binary.
import { performance } from 'node:perf_hooks';
import { Node } from '../tests/js/harness/node.js';
import { createRequire } from 'node:module';

process.env.JS_TEST_BIN ??= process.env.BENCH_BIN;
const WebSocket = createRequire(new URL('../tests/js/package.json', import.meta.url))('ws');
const clients = Number(process.argv[2] ?? 10_000);
const ROUNDS = 40;
const AT_ONCE = 200;

const node = await Node.start({ contracts: ['embedded:jobs-feed'] });
const url = `${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`;

const connect = (at) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(url, { perMessageDeflate: false });
    socket.on('error', reject);
    socket.on('message', (data) => {
      const text = String(data);
      if (text[0] === '0') socket.send('40/jobs,');
      else if (text === '2') socket.send('3');
      else if (text.startsWith('40/jobs')) socket.send(`42/jobs,1["subscribe:jobs",{"jobId":"j${at}","userId":"u${at % 100}"}]`);
      else if (text.startsWith('43/jobs')) resolve(socket);
    });
  });

for (let at = 0; at < clients; at += AT_ONCE) {
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, clients - at) }, (_, more) => connect(at + more)));
}

const cpu = async () => await node.metric('process_cpu_seconds_total');
const before = await cpu();
const times = [];
let size = 0;
let series = 0;
for (let round = 0; round < ROUNDS; round += 1) {
  const began = performance.now();
  const { body } = await node.api('GET', '/metrics', undefined, { key: null });
  times.push(performance.now() - began);
  size = body.length;
  series = body.split('\n').filter((line) => line && !line.startsWith('#')).length;
}
const used = (await cpu()) - before;
times.sort((a, b) => a - b);
const ms = (number) => `${number.toFixed(1)} ms`;
console.log(`${await node.metric('roomcast_connections')} clients, ${await node.metric('roomcast_rooms')} rooms, ${series} series, ${size} bytes`);
console.log(`a scrape: median ${ms(times[ROUNDS / 2])}, slowest ${ms(times.at(-1))}; CPU of the node ${ms((used / ROUNDS) * 1000)}`);
await node.stop('SIGKILL');
process.exit(0);
