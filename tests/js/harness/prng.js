// Seeded random numbers, so that JS_TEST_SEED repeats a failure.
export const SEED = Number(process.env.JS_TEST_SEED ?? 20260101);

/** A generator of pseudo-random numbers with the algorithm Mulberry32. */
export class Chance {
  #state;

  constructor(seed = SEED) {
    this.#state = seed >>> 0;
  }

  /** Returns a random number in [0, 1). */
  next() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }

  /** Returns a random whole number from `low` to `high`, both included. */
  int(low, high) {
    return low + Math.floor(this.next() * (high - low + 1));
  }

  pick(list) {
    return list[this.int(0, list.length - 1)];
  }

  bytes(length) {
    return Buffer.from(Array.from({ length }, () => this.int(0, 255)));
  }

  /** Returns random text from all Unicode planes, including control characters. */
  text(length) {
    return Array.from({ length }, () => String.fromCodePoint(this.pick(PLANES)(this))).join('');
  }

  /** Returns a random JSON value of limited depth. */
  json(depth = 3) {
    const kind = this.int(0, depth > 0 ? 8 : 5);
    switch (kind) {
      case 0:
        return null;
      case 1:
        return this.next() < 0.5;
      case 2:
        return this.int(-1e9, 1e9);
      case 3:
        return this.next() * 1e300;
      case 4:
      case 5:
        return this.text(this.int(0, 20));
      case 6:
        return Array.from({ length: this.int(0, 5) }, () => this.json(depth - 1));
      default:
        return Object.fromEntries(
          Array.from({ length: this.int(0, 5) }, () => [this.pick(MEMBERS) ?? this.text(3), this.json(depth - 1)]),
        );
    }
  }
}

const PLANES = [
  (chance) => chance.int(0x20, 0x7e),
  (chance) => chance.int(0, 0x1f),
  (chance) => chance.int(0xa0, 0x2fff),
  (chance) => chance.int(0x1f300, 0x1faff),
];
const MEMBERS = ['room', 'from', 'to', 'content', 'type', '_placeholder', 'num', '__proto__', 'constructor', undefined];
