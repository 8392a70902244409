// A server that is measured: its processor time and memory, as the kernel counts them.
import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
export const ROOMCAST = process.env.BENCH_BIN ?? join(here, '../target/release/roomcast');
const TICKS = Number(execFileSync('getconf', ['CLK_TCK']));

const roomcast = (engine) => ({
  command: ROOMCAST,
  args: ['serve'],
  env: {
    ROOMCAST_SERVER__ENGINE: engine,
    ROOMCAST_SERVER__LISTEN: '127.0.0.1:0',
    ROOMCAST_API__LISTEN: '127.0.0.1:0',
    ROOMCAST_CONTRACTS__FILES: JSON.stringify([join(here, 'bench.toml')]),
    ROOMCAST_LOG__LEVEL: 'warn',
    ROOMCAST_ANNOUNCE: '1',
    ...JSON.parse(process.env.BENCH_ENV ?? '{}'),
  },
});

export const TARGETS = {
  'roomcast, native': roomcast('native'),
  'roomcast, socketioxide': roomcast('socketioxide'),
  'Node socket.io': { command: process.execPath, args: [join(here, 'peer.js')], env: {} },
};

export class MeasuredServer {
  static async start({ command, args, env }) {
    const server = new MeasuredServer();
    const cwd = mkdtempSync(join(tmpdir(), 'bench-'));
    server.process = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
    for await (const line of createInterface({ input: server.process.stdout })) {
      if (line.startsWith('{"ready"')) {
        server.address = JSON.parse(line).server;
        break;
      }
    }
    if (!server.address) throw new Error(`${command} did not start`);
    server.process.stdout?.resume();
    return server;
  }

  /** User and system time since the start, in microseconds. */
  cpu() {
    const fields = readFileSync(`/proc/${this.process.pid}/stat`, 'utf8').split(') ')[1].split(' ');
    return ((Number(fields[11]) + Number(fields[12])) / TICKS) * 1e6;
  }

  /** Resident memory in KiB. */
  rss() {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${this.process.pid}/status`, 'utf8'))[1]);
  }

  stop() {
    this.process.kill('SIGKILL');
  }
}
