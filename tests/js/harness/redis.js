// A redis-server for one test, and a minimal client to inspect it.
import net from 'node:net';
import { eventually } from './eventually.js';
import { start, stop, temporary } from './process.js';

export class Redis {
  /** `args` are further options of redis-server. */
  static async start(args = []) {
    const redis = new Redis();
    redis.args = args;
    redis.dir = temporary('redis');
    redis.port = await freePort();
    await redis.up();
    return redis;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts redis-server on its port, without data. */
  async up() {
    const options = ['--port', this.port, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', this.dir];
    this.process = start('redis-server', [...options, ...this.args].map(String));
    await eventually('redis-server answers', async () => {
      if (this.process.exited) throw new Error('redis-server ended');
      // Another test's server on this port would also answer, and then end with that test.
      return String(await this.call('INFO', 'server')).includes(`process_id:${this.process.child.pid}\r`);
    });
  }

  /** Kills redis-server with SIGKILL, like a power cut. */
  async kill() {
    await stop(this.process, 'SIGKILL');
  }

  async stop() {
    await this.kill();
  }

  /** Sends one command on a new connection, and returns the answer. */
  async call(...args) {
    const socket = net.connect(this.port, '127.0.0.1');
    try {
      return await new Promise((resolve, reject) => {
        let data = Buffer.alloc(0);
        socket.setTimeout(5_000, () => reject(new Error('redis does not answer')));
        socket.on('error', reject);
        socket.on('close', () => reject(new Error('redis closed the connection')));
        socket.on('data', (more) => {
          data = Buffer.concat([data, more]);
          const reply = parse(data, 0);
          if (reply) reply.value instanceof Error ? reject(reply.value) : resolve(reply.value);
        });
        const parts = args.map((arg) => Buffer.from(String(arg)));
        socket.write(Buffer.concat([Buffer.from(`*${parts.length}\r\n`), ...parts.flatMap(bulk)]));
      });
    } finally {
      socket.destroy();
    }
  }

  /** All keys in Redis that match the pattern, sorted. */
  async keys(pattern = '*') {
    return (await this.call('KEYS', pattern)).sort();
  }
}

/** Returns a loopback port that was free a moment ago. */
export async function freePort() {
  const server = net.createServer();
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function bulk(part) {
  return [Buffer.from(`$${part.length}\r\n`), part, Buffer.from('\r\n')];
}

/** Parses RESP 2: { value, next }, or undefined if more bytes are needed. */
function parse(data, at) {
  const end = data.indexOf('\r\n', at);
  if (end < 0) return undefined;
  const head = data.toString('utf8', at + 1, end);
  const next = end + 2;
  switch (String.fromCharCode(data[at])) {
    case '+':
      return { value: head, next };
    case '-':
      return { value: new Error(head), next };
    case ':':
      return { value: Number(head), next };
    case '$': {
      const size = Number(head);
      if (size < 0) return { value: null, next };
      if (data.length < next + size + 2) return undefined;
      return { value: data.toString('utf8', next, next + size), next: next + size + 2 };
    }
    default: {
      const list = [];
      let place = next;
      for (let left = Number(head); left > 0; left -= 1) {
        const item = parse(data, place);
        if (!item) return undefined;
        list.push(item.value);
        place = item.next;
      }
      return { value: list, next: place };
    }
  }
}
