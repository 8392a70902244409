// A client of an Engine.IO server in which a test writes every request and every packet itself.
import assert from 'node:assert/strict';
import http from 'node:http';
import { WebSocket } from 'ws';
import { eventually } from './eventually.js';

const open = new Set();
const agent = new http.Agent({ keepAlive: true });

/** Ends every WebSocket that was made. */
export function closeAll() {
  open.forEach((socket) => socket.terminate());
  open.clear();
}

export class Peer {
  constructor(url) {
    this.url = url;
  }

  /**
   * Sends a request. Resolves with { status, text }, with status 400 if the server closes the connection instead of
   * answering.
   */
  async request(query, { method = 'GET', body, signal } = {}) {
    return await new Promise((resolve, reject) => {
      const request = http.request(`${this.url}?${query}`, { method, agent, signal }, async (response) => {
        const chunks = await response.toArray();
        resolve({ status: response.statusCode, text: Buffer.concat(chunks).toString() });
      });
      request.on('error', (error) => (signal?.aborted ? reject(error) : resolve({ status: 400, text: error.code })));
      request.end(body);
    });
  }

  /**
   * Opens a polling session. Returns the session's id, and functions to poll, to post, and to ask whether it has ended.
   */
  async polling() {
    const { text } = await this.request('EIO=4&transport=polling');
    const { sid } = JSON.parse(text.slice(1));
    const query = `EIO=4&transport=polling&sid=${sid}`;
    return {
      sid,
      poll: (options) => this.request(query, options),
      post: (body) => this.request(query, { method: 'POST', body }),
      gone: async () => {
        const { status, text: said } = await this.request(query);
        return status === 400 && /"code":1,/.test(said);
      },
    };
  }

  /** Opens a WebSocket whose messages and end a test can wait for. */
  websocket(query = 'EIO=4&transport=websocket') {
    const socket = new WebSocket(`${this.url.replace('http', 'ws')}?${query}`);
    open.add(socket);
    const got = [];
    let closed = false;
    socket.on('message', (data, isBinary) => got.push(isBinary ? data : data.toString())).on('error', () => {});
    socket.on('close', () => (closed = true));
    return {
      send: (...packets) => packets.forEach((packet) => socket.send(packet)),
      next: async () => await eventually('a message comes', () => (got.length ? { message: got.shift() } : closed && { closed }))
        .then((found) => found.message ?? assert.fail('closed')),
      closes: async () => await eventually('it is closed', () => closed),
    };
  }

  /** Opens a WebSocket, and waits for the open packet. */
  async session() {
    const socket = this.websocket();
    assert.match(await socket.next(), /^0\{/);
    return socket;
  }

  /** Opens a WebSocket that is connected to the main namespace. */
  async connected() {
    const socket = await this.session();
    socket.send('40');
    assert.match(await socket.next(), /^40\{/);
    assert.equal(await socket.next(), '42["auth",{}]');
    return socket;
  }

  /** Opens a polling session, and a WebSocket for its upgrade whose probe has been answered. */
  async upgraded() {
    const session = await this.polling();
    const query = `EIO=4&transport=websocket&sid=${session.sid}`;
    const socket = await this.probed(query);
    return { ...session, ...socket, query };
  }

  async probed(query) {
    const socket = this.websocket(query);
    await eventually('the WebSocket opens', () => [...open].at(-1).readyState === WebSocket.OPEN);
    socket.send('2probe');
    assert.equal(await socket.next(), '3probe');
    return socket;
  }
}
