// The official parsers: each request is one line of JSON, and so is its answer. Binary is {"$b":"<hex>"}.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const { Decoder, Encoder } = createRequire(process.argv[2])('socket.io-parser');
const engine = createRequire(createRequire(process.argv[2]).resolve('engine.io-client'))('engine.io-parser');

// The same maximum number of attachments as ours.
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
    // Text that cannot be encoded in UTF-8.
    return typeof leaf === 'string' ? leaf.toWellFormed() : undefined;
  });
const real = (value) =>
  mapped(value, (leaf) => (typeof leaf?.$b === 'string' ? Buffer.from(leaf.$b, 'hex') : undefined));

/** Decodes Engine.IO messages from a WebSocket to packets, or gives the reason of the refusal. */
function decode(messages) {
  const decoder = new Decoder({ maxAttachments: MAX_ATTACHMENTS });
  const packets = [];
  decoder.on('decoded', (packet) => packets.push(shown({ id: null, data: null, ...packet })));
  const kinds = [];
  try {
    for (const message of messages.map(real)) {
      const { type, data } = engine.decodePacket(message, 'nodebuffer');
      kinds.push(type);
      // Only servers send open packets and pings.
      if (['error', 'open', 'ping'].includes(type)) throw new Error('no packet of a client');
      if (type === 'message') decoder.add(data ?? '');
    }
  } catch (error) {
    return { packets, kinds, error: error.message };
  }
  return { packets, kinds, waits: Boolean(decoder.reconstructor) };
}

/** Encodes a packet as Engine.IO messages. */
function encode(packet) {
  const parts = new Encoder().encode(real(packet));
  return parts.map((part) => (typeof part === 'string' ? `4${part}` : shown(part)));
}

for await (const line of createInterface({ input: process.stdin })) {
  const { decode: messages, encode: packet } = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(messages ? decode(messages) : encode(packet))}\n`);
}
