// A roomcast process and its HTTP API.
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './eventually.js';
import { line, start, stop, temporary } from './process.js';
import { SECRET } from './token.js';

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../../..');
export const API_KEY = 'an-api-key-of-the-tests-0123456789abcdef';

export function binary() {
  const path = process.env.JS_TEST_BIN ?? join(ROOT, 'target/debug/roomcast');
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`cargo build\` first`);
  return path;
}

export class Node {
  /**
   * Starts a node on free ports and waits until it is ready.
   *
   * `toml` is appended to the configuration file, and `env` overrides it. `ready: false` waits only for the listeners.
   */
  static async start({ contracts, redis, toml = '', env = {}, ready = true }) {
    const node = new Node();
    node.dir = temporary('node');
    const file = join(node.dir, 'roomcast.toml');
    writeFileSync(file, configuration(contracts, redis) + toml);
    node.process = start(binary(), ['serve', '--config', file], {
      cwd: node.dir,
      env: {
        ROOMCAST_SERVER__LISTEN: '127.0.0.1:0',
        ROOMCAST_API__LISTEN: '127.0.0.1:0',
        ROOMCAST_ANNOUNCE: '1',
        // The drain need not wait, because no load balancer has to notice it.
        ROOMCAST_DRAIN__DELAY: '0s',
        ...env,
      },
    });
    const said = await line(node.process, announcement);
    node.id = said.node;
    node.url = `http://${said.server}`;
    node.apiUrl = `http://${said.api}`;
    // The URL of the listener for requests that other nodes forward, if `cluster.listen` is set.
    node.clusterUrl = said.cluster && `http://${said.cluster}`;
    if (ready) await eventually('the node is ready', async () => (await node.get('/ready')).status === 200);
    return node;
  }

  get alive() {
    return !this.process.exited;
  }

  async stop(signal = 'SIGTERM') {
    return await stop(this.process, signal);
  }

  /** Sends a GET request to the public listener. */
  async get(path, init) {
    return await answer(await fetch(this.url + path, init));
  }

  /** Sends a request to the API listener, by default with the API key. */
  async api(method, path, body, { key = API_KEY, headers = {} } = {}) {
    const response = await fetch(this.apiUrl + path, {
      method,
      headers: {
        ...(key && { authorization: `Bearer ${key}` }),
        ...(body !== undefined && { 'content-type': 'application/json' }),
        ...headers,
      },
      body: body === undefined || typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
    });
    return await answer(response);
  }

  /** Publishes a contract's event, and checks that the node accepts it. Returns the answer. */
  async publish(contract, event, data, params) {
    const { status, body } = await this.api('POST', '/api/v1/events', { contract, event, data, params });
    assert.equal(status, 202, JSON.stringify(body));
    assert.equal(body.accepted, true);
    return body;
  }

  /** Emits an event without a contract. */
  async emit(body) {
    const reply = await this.api('POST', '/api/v1/emit', body);
    assert.equal(reply.status, 202, JSON.stringify(reply.body));
    return reply.body;
  }

  /** Records the user who owns a room. */
  async own(namespace, room, owner, ttl = '1h') {
    const reply = await this.api('PUT', '/api/v1/owners', { namespace, room, owner, ttl });
    assert.ok(reply.status >= 200 && reply.status < 300, JSON.stringify(reply));
  }

  /** The sum of a metric over all series that have these labels. */
  async metric(name, labels = {}) {
    const { body } = await this.api('GET', '/metrics', undefined, { key: null });
    let sum = 0;
    for (const [, series, value] of body.matchAll(/^([^#\s]\S*|\S+\{.*\}) (\S+)$/gm)) {
      const [, found, list = ''] = /^([^{]+)(?:\{(.*)\})?$/.exec(series);
      const has = Object.entries(labels).every(([key, want]) => list.includes(`${key}="${want}"`));
      if (found === name && has) sum += Number(value);
    }
    return sum;
  }
}

function announcement(text) {
  if (!text.startsWith('{"ready"')) return undefined;
  const said = JSON.parse(text);
  return said.ready && said;
}

async function answer(response) {
  const raw = await response.text();
  const json = response.headers.get('content-type')?.includes('json');
  return { status: response.status, body: json && raw ? JSON.parse(raw) : raw, headers: response.headers };
}

function configuration(contracts, redis) {
  return `
[contracts]
files = ${JSON.stringify(contracts)}
[[api.keys]]
name = "tests"
secret = "${API_KEY}"
[[auth.keys]]
algorithm = "HS256"
secret = "${SECRET}"
[log]
level = "info"
${redis ? `[redis]\nurl = "${redis.url}"\n` : ''}`;
}
