// Starts three nodes behind nginx, of roomcast or of Node's socket.io.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const ROOMCAST = process.env.BENCH_BIN ?? join(here, '../../target/release/roomcast');
const API_KEY = 'the-api-key-of-the-benchmark-0123456789';
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

const TICK = 2_000;

export const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export async function until(what, ask, deadline = 120_000) {
  const end = Date.now() + deadline;
  while (!(await Promise.resolve().then(ask).catch(() => false))) {
    if (Date.now() > end) throw new Error(`not in time: ${what}`);
    await sleep(100);
  }
}

export function run(command, args, { env = {}, stdio = ['ignore', 'pipe', 'inherit'] } = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio });
  children.add(child);
  child.ended = new Promise((resolve) => child.once('close', (code) => {
    children.delete(child);
    resolve(code);
  }));
  return child;
}

const roomcast = (engine) => ({
  start: (port, api, redis) => run(ROOMCAST, ['serve'], {
    env: {
      ROOMCAST_SERVER__ENGINE: engine,
      ROOMCAST_SERVER__LISTEN: `127.0.0.1:${port}`,
      ROOMCAST_API__LISTEN: `127.0.0.1:${api}`,
      ROOMCAST_API__KEYS: `[{name="bench",secret="${API_KEY}"}]`,
      ROOMCAST_REDIS__URL: redis,
      ROOMCAST_CONTRACTS__FILES: JSON.stringify([join(here, '../contracts/restart.toml')]),
      ROOMCAST_LOG__LEVEL: 'warn',
      ROOMCAST_ANNOUNCE: '1',
      // nginx does not check /ready.
      ROOMCAST_DRAIN__DELAY: '0s',
    },
  }),
  count: async (port, api) => {
    const text = await (await fetch(`http://127.0.0.1:${api}/metrics`)).text();
    return Number(/^roomcast_connections\{.*\} (\d+)$/m.exec(text)?.[1]);
  },
  publish: async (api, n) => {
    const headers = { authorization: `Bearer ${API_KEY}`, 'content-type': 'application/json' };
    const body = JSON.stringify({ contract: 'restart', event: 'tick', data: { n } });
    const answer = await fetch(`http://127.0.0.1:${api}/api/v1/events`, { method: 'POST', headers, body });
    if (answer.status !== 202) throw new Error(`a publish is answered ${answer.status}: ${await answer.text()}`);
  },
});

export const FLEETS = {
  'roomcast, native': roomcast('native'),
  'roomcast, socketioxide': roomcast('socketioxide'),
  'Node socket.io': {
    start: (port, api, redis) => run(process.execPath, [join(here, 'peer.js'), String(port), redis]),
    count: async (port) => Number(await (await fetch(`http://127.0.0.1:${port}/count`)).text()),
  },
};

export class Fleet {
  static async start(kind, size = 3) {
    const fleet = new Fleet();
    fleet.kind = FLEETS[kind];
    fleet.dir = mkdtempSync(join(tmpdir(), 'bench-'));
    const redis = await freePort();
    fleet.redisUrl = `redis://127.0.0.1:${redis}`;
    fleet.redis = run('redis-server', ['--port', redis, '--bind', '127.0.0.1', '--save', '', '--dir', fleet.dir].map(String));
    fleet.redis.stdout.resume();
    await until('redis-server listens', () => new Promise((resolve, reject) => {
      const socket = net.connect(redis, '127.0.0.1', () => resolve(socket.destroy()) || resolve(true));
      socket.on('error', reject);
    }));
    fleet.nodes = [];
    for (let at = 0; at < size; at += 1) fleet.nodes.push({ port: await freePort(), api: await freePort() });
    await Promise.all(fleet.nodes.map((_, at) => fleet.boot(at)));
    const door = await freePort();
    fleet.url = `http://127.0.0.1:${door}`;
    const addresses = fleet.nodes.map(({ port }) => `127.0.0.1:${port}`);
    fleet.nginx = run(join(here, '../../scripts/nginx-front'), [join(fleet.dir, 'nginx'), `127.0.0.1:${door}`, ...addresses], {
      env: { FRONT_CONNECTIONS: '19000' },
    });
    fleet.nginx.stdout.resume();
    await until('nginx answers', async () => (await fetch(`${fleet.url}/ready`)).ok);
    return fleet;
  }

  async boot(at) {
    const node = this.nodes[at];
    node.process = this.kind.start(node.port, node.api, this.redisUrl);
    const lines = createInterface({ input: node.process.stdout });
    await new Promise((resolve, reject) => {
      lines.on('line', (line) => line.startsWith('{"ready"') && resolve());
      node.process.ended.then((code) => reject(new Error(`a node ended with ${code}`)));
    });
    await until('the node is ready', async () => (await fetch(`http://127.0.0.1:${node.port}/ready`)).ok);
  }

  count(at) {
    return this.kind.count(this.nodes[at].port, this.nodes[at].api);
  }

  /** Every two seconds publishes numbered events to all clients, through a node that is not restarted; Node's socket.io
   * gets none. */
  tick() {
    if (!this.kind.publish) return;
    let n = 0;
    const publish = async () => {
      const node = this.nodes.find((_, at) => at !== this.leaving);
      n += 1;
      await this.kind.publish(node.api, n);
      this.ticking = setTimeout(publish, TICK);
    };
    this.ticking = setTimeout(publish, TICK);
  }

  /** Ends a node with SIGTERM and starts it again on the same port. Returns how long it took to leave, and the exit
   * code. */
  async restart(at) {
    const began = Date.now();
    this.leaving = at;
    this.nodes[at].process.kill('SIGTERM');
    const code = await this.nodes[at].process.ended;
    const took = Date.now() - began;
    await this.boot(at);
    this.leaving = undefined;
    return { took, code };
  }

  async stop() {
    clearTimeout(this.ticking);
    for (const child of [this.nginx, ...this.nodes.map(({ process }) => process), this.redis]) {
      child.kill('SIGKILL');
      await child.ended;
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}
