// The nodes that a suite runs against: one node in memory, or two nodes and a Redis. A suite does not know which of the
// two it runs against.
import { after } from 'node:test';
import { Client } from './client.js';
import { Node } from './node.js';
import { Redis } from './redis.js';

export const MODE = process.env.JS_TEST_MODE ?? 'memory';
export const ENGINE = process.env.ROOMCAST_SERVER__ENGINE ?? 'native';

/**
 * Starts the nodes. Backends publish to `a`, and clients connect to `b`; in memory both are the same node.
 *
 * All processes end with the test file.
 */
export async function world({ contracts, toml, env, mode = MODE }) {
  const redis = mode === 'cluster' ? await Redis.start() : undefined;
  const a = await Node.start({ contracts, redis, toml, env });
  const b = redis ? await Node.start({ contracts, redis, toml, env }) : a;
  const clients = new Set();
  const all = new Set([a, b]);
  after(async () => {
    clients.forEach((client) => client.close());
    await Promise.all([...all].map((node) => node.stop()));
    await redis?.stop();
  });
  const keep = (client) => {
    clients.add(client);
    return client;
  };
  return {
    mode,
    redis,
    a,
    b,
    nodes: [...all],
    /** Connects a client, to `b` by default, and waits until the client is connected. */
    connect: async (options = {}, node = b) => keep(await Client.connect(node, options)),
    /** Makes a client whose connection may be refused. */
    open: (options = {}, node = b) => keep(new Client(node, options)),
    /** Closes all clients that the tests have made so far. */
    clear: () => {
      clients.forEach((client) => client.close());
      clients.clear();
    },
  };
}
