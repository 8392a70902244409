// The official Socket.IO client, with an inbox of the events that it received.
import assert from 'node:assert/strict';
import http from 'node:http';
import { createRequire } from 'node:module';
import { io } from 'socket.io-client';
import { eventually } from './eventually.js';
import { token as sign } from './token.js';

export const TRANSPORTS = {
  websocket: ['websocket'],
  polling: ['polling'],
  upgrade: ['polling', 'websocket'],
};

/** The transport of a suite's clients, unless a client names its own. */
const DEFAULT = process.env.JS_TEST_TRANSPORT ?? 'websocket';

/** The options of clients with a parser; a suite's clients have the parser that JS_TEST_PARSER names unless they ask for another. */
export const PARSERS = {
  json: {},
  msgpack: { parser: createRequire(import.meta.url)('socket.io-msgpack-parser') },
};
export const PARSER = process.env.JS_TEST_PARSER ?? 'json';

const MARKER = 'test:marker';
let markers = 0;
let addresses = 0;

/** A loopback address that no other client of this process has, so that limits per IP address do not add up. */
export function strangeAddress() {
  addresses += 1;
  return `127.${(process.pid % 200) + 1}.${addresses >> 8}.${addresses & 255}`;
}

/** What clients of all versions have in common. A subclass makes the `socket` and the `inbox`, and waits in `connected`. */
export class AnyClient {
  /** Connects, and upgrades if the transport asks for it. Rejects with the refusal. */
  static async connect(node, options) {
    const client = new this(node, options);
    await client.connected();
    if (client.transport === 'upgrade') {
      await eventually('the transport is upgraded', () => client.socket.io.engine.transport.name === 'websocket');
    }
    return client;
  }

  get id() {
    return this.socket.id;
  }

  /** Emits without an acknowledgement. */
  send(...event) {
    this.socket.emit(...event);
  }

  /** Waits for the next event with any name. */
  async next(deadline = 5_000) {
    return await eventually('an event arrives', () => this.inbox.shift(), deadline);
  }

  /** Waits until the server or the network has closed the connection. Returns the reason. */
  async ended(deadline = 10_000) {
    return await eventually('the client is disconnected', () => this.disconnected, deadline);
  }
}

export class Client extends AnyClient {
  /** Opens a connection without waiting for anything. */
  constructor(node, { namespace = '/', transport = DEFAULT, encoding = PARSER, user, claims, token, auth, address, ...options } = {}) {
    const credential = token ?? (user || claims ? sign({ sub: user, ...claims }) : undefined);
    super();
    this.node = node;
    this.user = user;
    this.transport = transport;
    this.namespace = namespace;
    this.inbox = [];
    this.disconnected = undefined;
    this.agent = address && new http.Agent({ localAddress: address, keepAlive: true });
    this.socket = io(node.url + namespace, {
      transports: TRANSPORTS[transport],
      forceNew: true,
      reconnection: false,
      agent: this.agent,
      auth: auth ?? (credential === undefined ? undefined : { token: credential }),
      ...PARSERS[encoding],
      ...options,
    });
    this.socket.onAny((...event) => this.inbox.push(event));
    this.socket.on('disconnect', (reason) => (this.disconnected = reason));
  }

  async connected(deadline = 10_000) {
    if (this.socket.connected) return;
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('neither connect nor connect_error')), deadline);
      const refused = (error) => {
        if (error.type === 'TransportError') error.message += ` (${error.description?.message ?? error.description})`;
        reject(error);
      };
      this.socket.once('connect', resolve).once('connect_error', refused);
      this.socket.once('connect', () => clearTimeout(timer)).once('connect_error', () => clearTimeout(timer));
    });
  }

  close() {
    this.socket.disconnect();
    this.agent?.destroy();
  }

  /** Emits, and returns the acknowledgement. */
  async ask(...event) {
    return await this.socket.timeout(5_000).emitWithAck(...event);
  }

  /**
   * Returns all events that have arrived or are still in flight from the node `via`: that node sends a marker event,
   * and the events before the marker are returned.
   */
  async drain(via = this.node) {
    markers += 1;
    const marker = markers;
    const sent = await via.emit({ namespace: this.namespace, sockets: [this.id], event: MARKER, args: [marker] });
    assert.equal(sent.accepted, true);
    const place = () => this.inbox.findIndex(([name, value]) => name === MARKER && value === marker);
    const at = await eventually('the marker arrives', () => place() + 1);
    const before = this.inbox.splice(0, at);
    return before.filter(([name]) => name !== MARKER);
  }
}
