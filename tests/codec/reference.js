// The official parsers, by lines: each request is one line of JSON, and so is its answer. Binary is {"$b":"<hex>"}.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { Decoder, Encoder } = createRequire(process.argv[2])('socket.io-parser');
const engine = createRequire(createRequire(process.argv[2]).resolve('engine.io-client'))('engine.io-parser');

// As many attachments as we take.
const MAX_ATTACHMENTS = 1024;

const mapped = (value, leaf) => {
  const changed = leaf(value);
  if (changed !== undefined) return changed;
  if (Array.isArray(value)) return value.map((item) => mapped(item, leaf));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key.toWellFormed(), mapped(item, leaf)]));
};
const shown = (value) =>
  mapped(value, (leaf) => {
    if (Buffer.isBuffer(leaf)) return { $b: leaf.toString('hex') };
    // What cannot be told in UTF-8.
    return typeof leaf === 'string' ? leaf.toWellFormed() : undefined;
  });
const real = (value) =>
  mapped(value, (leaf) => (typeof leaf?.$b === 'string' ? Buffer.from(leaf.$b, 'hex') : undefined));

/** Engine.IO messages, as a WebSocket brings them, to packets, or to why not. */
function decode(messages) {
  const decoder = new Decoder({ maxAttachments: MAX_ATTACHMENTS });
  const packets = [];
  decoder.on('decoded', (packet) => packets.push(shown({ id: null, data: null, ...packet })));
  const kinds = [];
  try {
    for (const message of messages.map(real)) {
      const { type, data } = engine.decodePacket(message, 'nodebuffer');
      kinds.push(type);
      // Servers open and ping.
      if (['error', 'open', 'ping'].includes(type)) throw new Error('no packet of a client');
      if (type === 'message') decoder.add(data ?? '');
    }
  } catch (error) {
    return { packets, kinds, error: error.message };
  }
  return { packets, kinds, waits: Boolean(decoder.reconstructor) };
}

/** A packet to Engine.IO messages. */
function encode(packet) {
  const parts = new Encoder().encode(real(packet));
  return parts.map((part) => (typeof part === 'string' ? `4${part}` : shown(part)));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { decode: messages, encode: packet } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(messages ? decode(messages) : encode(packet))}\n`);
}
