// Streams of numbered events by sender and room. Each event carries a checksum of its filling (random text or bytes).
import { createHash } from 'node:crypto';

/** A short checksum of a filling. */
function checksum(filling) {
  const hash = createHash('md5');
  if (filling !== null) hash.update(Buffer.isBuffer(filling) ? 'b' : 's').update(filling);
  return hash.digest('hex').slice(0, 12);
}

/** The events of one sender to one room, numbered from 1. */
export class Stream {
  /** Number of events that were made, and that a client may therefore receive. */
  started = 0;
  /** Number of events that the node has accepted. */
  completed = 0;

  constructor(id, room, totals) {
    Object.assign(this, { id, room, totals });
  }

  /** The next event of the stream. */
  next(filling) {
    this.started += 1;
    this.totals.set(this.room, (this.totals.get(this.room) ?? 0) + 1);
    return { stream: this.id, room: this.room, n: this.started, sum: checksum(filling), filling };
  }
}

export class Streams {
  #all = new Map();
  #rooms = new Map();
  #totals = new Map();

  /** Returns the stream with this id, and creates the stream if there is none. */
  open(id, room) {
    if (this.#all.has(id)) return this.#all.get(id);
    const stream = new Stream(id, room, this.#totals);
    this.#all.set(id, stream);
    if (!this.#rooms.has(room)) this.#rooms.set(room, []);
    this.#rooms.get(room).push(stream);
    return stream;
  }

  get(id) {
    return this.#all.get(id);
  }

  /** Number of events that all streams to a room have made so far. */
  total(room) {
    return this.#totals.get(room) ?? 0;
  }

  /** All streams to a room. */
  of(room) {
    return this.#rooms.get(room) ?? [];
  }
}

/** How an event differs from the event that was sent. Undefined if both are equal. */
export function damage(event) {
  const { sum, filling } = event ?? {};
  if (filling === undefined) return 'it has no filling';
  const plain = filling instanceof Uint8Array ? Buffer.from(filling) : filling;
  return checksum(plain) === sum ? undefined : `its filling is not what was sent (${checksum(plain)}, not ${sum})`;
}

const LARGE_BYTES = 150_000;
const BLOCK_BYTES = 1 << 18;

/** Fillings of any size and kind, cut from one block. */
export class Fillings {
  constructor(chance) {
    this.chance = chance;
    this.block = chance.bytes(BLOCK_BYTES);
    this.text = this.block.toString('latin1').replaceAll('\u0000', '\u20ac');
  }

  /** Mostly short fillings; `large` makes long ones, which are rare. */
  next({ large = false, binary = false } = {}) {
    const { chance } = this;
    if (chance.next() < 0.1) return null;
    const most = large && chance.next() < 0.03 ? LARGE_BYTES : chance.pick([16, 200, 200, 2_000, 9_000]);
    const length = chance.int(0, most);
    const at = chance.int(0, BLOCK_BYTES - length - 2);
    if (binary && chance.next() < 0.5) return this.block.subarray(at, at + length);
    return this.text.slice(at, at + length);
  }
}
