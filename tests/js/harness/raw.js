// Engine.IO sessions in which a test writes each packet itself, for packets that no client would send.
import net from 'node:net';
import WebSocket from 'ws';
import { eventually } from './eventually.js';
import { token } from './token.js';

/** A WebSocket session that is connected to `/` as a user, packet by packet. */
export class RawSession {
  static async open(node, user = 'mallory') {
    const session = await RawSession.unconnected(node);
    session.send(`40${JSON.stringify({ token: token({ sub: user }) })}`);
    await session.until('the namespace is connected', (packet) => packet.startsWith('40'));
    return session;
  }

  /** Opens a session that is not connected to a namespace yet. */
  static async unconnected(node) {
    const session = new RawSession();
    session.packets = [];
    session.closed = undefined;
    session.socket = new WebSocket(`${node.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket`);
    session.socket.on('error', () => {});
    session.socket.on('close', (code) => (session.closed = code));
    session.socket.on('message', (data, binary) => session.take(binary ? data : data.toString()));
    await session.until('the session opens', (packet) => packet[0] === '0');
    return session;
  }

  take(packet) {
    if (packet === '2') this.send('3');
    else this.packets.push(packet);
  }

  send(packet) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(packet);
  }

  /** Waits for a packet. Undefined if the session was closed instead. */
  async until(what, wanted, deadline = 5_000) {
    const found = await eventually(
      what,
      () => {
        const at = this.packets.findIndex((packet) => typeof packet === 'string' && wanted(packet));
        if (at >= 0) return { packet: this.packets.splice(at, 1)[0] };
        return this.closed === undefined ? undefined : {};
      },
      deadline,
    );
    return found.packet;
  }

  close() {
    this.socket.terminate();
  }
}

/** Opens a polling session that is connected to `/`, and returns its URL. */
export async function openPolling(node, user = 'mallory') {
  const base = `${node.url}/socket.io/?EIO=4&transport=polling`;
  const { sid } = JSON.parse((await (await fetch(base)).text()).slice(1));
  const url = `${base}&sid=${sid}`;
  const answer = await fetch(url, { method: 'POST', body: `40${JSON.stringify({ token: token({ sub: user }) })}` });
  await answer.text();
  for (;;) {
    const packets = (await (await fetch(url)).text()).split('\x1e');
    if (packets.some((packet) => packet.startsWith('40'))) return url;
  }
}

/**
 * Writes bytes to the public listener, and returns what arrived before the server closed the connection. `ended` is
 * false if the server did not close the connection within the deadline.
 */
export async function bytes(node, data, { deadline = 3_000, half = false } = {}) {
  const { hostname, port } = new URL(node.url);
  return await new Promise((resolve) => {
    const chunks = [];
    const socket = net.connect({ host: hostname, port, allowHalfOpen: true });
    const done = (ended) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ ended, text: Buffer.concat(chunks).toString('latin1') });
    };
    const timer = setTimeout(() => done(false), deadline);
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', () => done(true)).on('close', () => done(true)).on('error', () => done(true));
    socket.write(data);
    if (half) socket.end();
  });
}

/** Makes one WebSocket frame, which may have any mistake. */
export function frame({ opcode = 1, payload = Buffer.alloc(0), fin = true, reserved = 0, masked = true, length } = {}) {
  const size = length ?? payload.length;
  const head = [(fin ? 0x80 : 0) | (reserved << 4) | opcode];
  const flag = masked ? 0x80 : 0;
  if (size < 126) head.push(flag | size);
  else if (size < 65_536) head.push(flag | 126, size >> 8, size & 255);
  else {
    const long = Buffer.alloc(8);
    long.writeBigUInt64BE(BigInt(size));
    head.push(flag | 127, ...long);
  }
  const mask = masked ? [1, 2, 3, 4] : [];
  const body = masked ? payload.map((byte, at) => byte ^ mask[at % 4]) : payload;
  return Buffer.concat([Buffer.from(head), Buffer.from(mask), Buffer.from(body)]);
}

export function upgradeRequest(path, headers = '') {
  return Buffer.from(
    `GET ${path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${headers}\r\n`,
  );
}
