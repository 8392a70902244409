// Plays one script against a small Node server and against a node with a contract, and compares what the clients saw.
//
// An application of the gallery is { contract, serve, publish, play }:
//   serve(io)               the server that a team would write with the package `socket.io`
//   publish(io, event, …)   what its backend code sends; on roomcast the HTTP API publishes the event of the contract
//   play(stage)             the clients: connect, send, ask, publish, leave
// After each step the stage waits until every client has received everything that the step caused, so that both
// transcripts have the same order.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, test } from 'node:test';
import { join } from 'node:path';
import { io as connect } from 'socket.io-client';
import { Server } from 'socket.io';
import { token } from './token.js';
import { Node, ROOT } from './node.js';

/** An event that no application has. Servers answer it after everything that they sent before. */
const BARRIER = 'transcript:barrier';

export function gallery(name, application) {
  test(`${name}: the contract does what the Node server does`, async () => {
    const wanted = await transcript(await official(application), application.play);
    const got = await transcript(await roomcast(name, application), application.play);
    assert.deepEqual(got, wanted);
    assert.ok(wanted.some(([who]) => who !== 'step'), 'the script shows nothing');
  });
}

async function official({ serve, publish, options }) {
  const server = http.createServer();
  const io = new Server(server, options);
  io.on('new_namespace', (namespace) => namespace.on('connection', answerBarrier));
  serve(io);
  io.of('/').on('connection', answerBarrier);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    publish: (...event) => publish(io, ...event),
    stop: () => io.close(),
  };
}

function answerBarrier(socket) {
  socket.on(BARRIER, (ack) => ack());
}

async function roomcast(name, { backend, toml = '', contract = name }) {
  const helper = await backend?.();
  const node = await Node.start({ contracts: [join(ROOT, `contracts/gallery/${name}.toml`)], toml: toml + (helper?.toml ?? '') });
  after(() => node.stop());
  return {
    url: node.url,
    publish: (event, data, params) => node.publish(contract, event, data, params),
    stop: async () => {
      await node.stop();
      await helper?.stop();
    },
  };
}

async function transcript(server, play) {
  const stage = new Stage(server);
  try {
    await play(stage);
    return stage.lines.map((line) => stage.plain(line));
  } finally {
    stage.clients.forEach(({ socket }) => socket.disconnect());
    await server.stop();
  }
}

class Stage {
  constructor(server) {
    this.server = server;
    this.clients = new Map();
    this.ids = new Map();
    this.lines = [];
  }

  /** Connects a client. `user` makes a token; the Node servers of the gallery read its `sub` without a check. */
  async connect(who, { namespace = '/', user, claims, auth, ...options } = {}) {
    const socket = connect(this.server.url + namespace, {
      forceNew: true,
      reconnection: false,
      transports: ['websocket'],
      auth: user || claims ? { token: token({ sub: user, ...claims }), ...auth } : auth,
      ...options,
    });
    const client = { who, socket, got: [] };
    socket.onAny((...event) => client.got.push(event));
    const refused = await new Promise((resolve) => socket.once('connect', resolve).once('connect_error', resolve));
    if (refused) {
      this.lines.push([who, 'connect_error', refused.message, refused.data ?? null]);
      socket.disconnect();
      return undefined;
    }
    this.ids.set(socket.id, who);
    this.clients.set(who, client);
    await this.settle(who);
    return socket.id;
  }

  /** Emits without an acknowledgement. */
  async send(who, ...event) {
    this.clients.get(who).socket.emit(...event);
    await this.settle(who);
  }

  /** Emits, and records the acknowledgement. */
  async ask(who, ...event) {
    const answer = await this.clients.get(who).socket.timeout(5_000).emitWithAck(...event);
    this.lines.push([who, 'ack', event[0], answer]);
    await this.settle(who);
  }

  /** Sends from the backend. */
  async publish(...event) {
    await this.server.publish(...event);
    await this.settle();
  }

  /** Disconnects a client, and waits until the others have been told. */
  async leave(who, { expect = [] } = {}) {
    this.clients.get(who).socket.disconnect();
    this.clients.delete(who);
    for (const other of expect) await this.next(other);
    await this.settle();
  }

  /** Waits until a client has an event that has not been recorded yet. */
  async next(who) {
    const client = this.clients.get(who);
    if (client.got.length === 0) await new Promise((resolve) => client.socket.onAny(resolve));
  }

  /** Waits until the server has done what `first` asked for, and until all clients have received everything. */
  async settle(first) {
    const others = [...this.clients.values()].filter(({ who }) => who !== first);
    for (const client of [this.clients.get(first), ...others]) {
      if (client?.socket.connected) await client.socket.timeout(5_000).emitWithAck(BARRIER);
    }
    for (const { who, got } of this.clients.values()) this.lines.push(...got.splice(0).map((event) => [who, ...event]));
    this.lines.push(['step']);
  }

  /** Puts names in the place of socket ids and of times, which differ from run to run. */
  plain(value) {
    if (typeof value === 'string') {
      if (/^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(value)) return '<time>';
      return [...this.ids].reduce((text, [id, who]) => text.replaceAll(id, `<${who}>`), value);
    }
    if (Array.isArray(value)) return value.map((item) => this.plain(item));
    if (Buffer.isBuffer(value) || value instanceof ArrayBuffer) return `<${Buffer.from(value).toString('hex')}>`;
    if (value && typeof value === 'object') {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [this.plain(key), this.plain(item)]));
    }
    return value;
  }
}
