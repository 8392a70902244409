// A client of the bare protocol, cheap enough that the server is what is measured.
import { connect } from 'node:net';

const REQUEST = (host) =>
  `GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';

/** A masked text frame; a mask of zeroes leaves the payload as it is. */
function frame(text) {
  const payload = Buffer.from(text);
  const long = payload.length > 125;
  const head = Buffer.alloc(long ? 8 : 6);
  head[0] = 0x81;
  head[1] = 0x80 | (long ? 126 : payload.length);
  if (long) head.writeUInt16BE(payload.length, 2);
  return Buffer.concat([head, payload]);
}

export class Client {
  /** Opens a connection and comes into the main namespace. `heard` gets every event's text. */
  static open(address, heard) {
    const [host, port] = address.split(':');
    const client = new Client();
    client.heard = heard;
    client.acks = new Map();
    client.rest = undefined;
    client.socket = connect({ host, port: Number(port), noDelay: true });
    return new Promise((resolve, reject) => {
      client.connected = () => resolve(client);
      client.socket.on('error', reject);
      client.socket.on('close', () => reject(new Error('closed')));
      client.socket.once('data', (bytes) => client.upgraded(bytes));
      client.socket.write(REQUEST(address));
    });
  }

  upgraded(bytes) {
    const end = bytes.indexOf('\r\n\r\n');
    if (end < 0 || !bytes.subarray(0, 12).equals(Buffer.from('HTTP/1.1 101'))) throw new Error(bytes.toString());
    this.socket.on('data', (more) => this.take(more));
    this.send('40');
    this.take(bytes.subarray(end + 4));
  }

  take(bytes) {
    let all = this.rest ? Buffer.concat([this.rest, bytes]) : bytes;
    let at = 0;
    while (all.length - at >= 2) {
      let length = all[at + 1] & 0x7f;
      let head = 2;
      if (length === 126) {
        if (all.length - at < 4) break;
        length = all.readUInt16BE(at + 2);
        head = 4;
      }
      if (all.length - at < head + length) break;
      const start = at + head;
      at = start + length;
      this.packet(all, start, at);
    }
    this.rest = at < all.length ? all.subarray(at) : undefined;
  }

  packet(bytes, start, end) {
    const type = bytes[start];
    if (type === 0x32) return this.send('3');
    if (type !== 0x34) return undefined;
    const kind = bytes[start + 1];
    if (kind === 0x32) return this.heard?.(bytes, start + 2, end);
    if (kind === 0x30) return this.connected();
    if (kind === 0x33) {
      const id = Number.parseInt(bytes.latin1Slice(start + 2, end), 10);
      this.acks.get(id)?.();
      this.acks.delete(id);
    }
    return undefined;
  }

  send(text) {
    this.socket.write(frame(text));
  }

  join(room) {
    const id = this.acks.size;
    return new Promise((resolve) => {
      this.acks.set(id, resolve);
      this.send(`42${id}["join","${room}"]`);
    });
  }

  close() {
    this.socket.removeAllListeners('close');
    this.socket.on('close', () => {});
    this.socket.destroy();
  }
}
