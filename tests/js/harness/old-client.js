// The official clients of Socket.IO 2, which speak Engine.IO 3, with the inbox and the methods of `Client`.
import { createRequire } from 'node:module';
import { AnyClient, TRANSPORTS } from './client.js';
import { eventually } from './eventually.js';

const require = createRequire(import.meta.url);

/** The versions of socket.io-client that the tests have, beside the current one. */
export const OLD_CLIENTS = ['2.3', '2.4', '2.5'];

export class OldClient extends AnyClient {
  /** Opens a connection without waiting for anything. `query` goes to the handshake, and to CONNECT of a namespace. */
  constructor(node, { version = '2.5', namespace = '/', transport = 'upgrade', token, query, ...options } = {}) {
    super();
    this.transport = transport;
    this.inbox = [];
    this.disconnected = undefined;
    this.refused = undefined;
    this.socket = require(`socket.io-client-${version}`)(node.url + namespace, {
      transports: TRANSPORTS[transport],
      forceNew: true,
      reconnection: false,
      query: query ?? (token && { token }),
      ...options,
    });
    const { onevent } = this.socket;
    this.socket.onevent = (packet) => {
      this.inbox.push(packet.data);
      onevent.call(this.socket, packet);
    };
    this.socket.on('disconnect', (reason) => (this.disconnected = reason));
    // Socket.IO 2 has no `connect_error` for a refusal by the server: the ERROR packet becomes this event.
    this.socket.on('error', (error) => (this.refused = error));
    this.socket.on('connect_error', (error) => (this.failed = error));
  }

  async connected() {
    await eventually('the client is connected or refused', () => this.socket.connected || this.refused || this.failed);
    if (!this.socket.connected) throw this.refused ?? this.failed;
  }

  close() {
    this.socket.close();
    this.socket.io.close();
  }

  /** Emits, and resolves to the arguments of the acknowledgement. */
  async acked(...event) {
    let answer;
    this.socket.emit(...event, (...args) => (answer = args));
    return await eventually(`${event[0]} is acknowledged`, () => answer);
  }

  /** Emits, and returns the first argument of the acknowledgement. */
  async ask(...event) {
    return (await this.acked(...event))[0];
  }
}
