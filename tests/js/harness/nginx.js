// nginx in front of nodes, with the files in nginx/.
import net from 'node:net';
import { join } from 'node:path';
import { strangeAddress } from './client.js';
import { eventually } from './eventually.js';
import { ROOT } from './node.js';
import { start, stop, temporary } from './process.js';
import { freePort } from './redis.js';

export class Nginx {
  /** Starts nginx in front of these addresses (HOST:PORT). `env` are the variables of scripts/nginx-front. */
  static async start(nodes, env = {}) {
    const nginx = new Nginx();
    nginx.folder = temporary('nginx');
    nginx.port = await freePort();
    nginx.address = `127.0.0.1:${nginx.port}`;
    nginx.url = `${env.FRONT_TLS ? 'https' : 'http'}://${nginx.address}`;
    nginx.process = start(join(ROOT, 'scripts/nginx-front'), [nginx.folder, nginx.address, ...nodes], { env });
    await eventually('nginx listens', async () => {
      if (nginx.process.exited) throw new Error('nginx ended');
      return await listens(nginx.port);
    });
    return nginx;
  }

  /** Ends nginx and its workers at once. */
  async stop() {
    await stop(this.process, 'SIGTERM', 5_000);
  }
}

/** Whether something listens. The address is a stranger's, because nodes may limit the connections of an address. */
async function listens(port) {
  const socket = net.connect({ host: '127.0.0.1', port, localAddress: strangeAddress() });
  const answer = await new Promise((resolve) => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
  });
  socket.destroy();
  return answer;
}
