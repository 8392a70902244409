// Mixed traffic over two nodes with a Redis. Every event of every client is checked: order, loss, content.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Node } from '../harness/node.js';
import { Chance } from '../harness/prng.js';
import { line, start, stop } from '../harness/process.js';
import { Redis } from '../harness/redis.js';
import { flood } from './flood.js';
import { Fillings, Streams } from './streams.js';
import { Walker } from './walker.js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const HALLS = 6;
const MAX_FAILURES = 40;
const PACE_MS = 4;
// Maximum number of events in flight to a client: less than the client's write queue can hold.
const MAX_BACKLOG = 300;
// The kinds of clients: those that begin by polling and upgrade, as the official client does by itself, come most often.
const CLIENTS = ['upgrade', 'upgrade', 'upgrade', 'websocket', 'websocket', 'polling'];

export class Soak {
  streams = new Streams();
  failures = [];
  halls = Array.from({ length: HALLS }, (_, n) => `${n}`);
  count = { events: 0, checks: 0, published: 0, said: 0, echoes: 0, joins: 0, connects: 0, upgrades: 0, pauses: 0, floods: 0, dropped: 0 };

  constructor({ engines, walkers = 24, seed }) {
    Object.assign(this, { engines, walkers, chance: new Chance(seed) });
    this.fillings = new Fillings(this.chance);
  }

  /** Runs for this number of seconds. Returns the failures. */
  async run(seconds) {
    await this.#start();
    try {
      this.until = Date.now() + seconds * 1_000;
      this.crowd = Array.from({ length: this.walkers }, (_, n) => new Walker(this, `w${n}`, this.place()));
      await Promise.all(this.crowd.map((walker) => walker.connect()));
      const working = this.crowd.map((walker) => this.#walk(walker));
      working.push(this.#publish(0), this.#publish(1), this.#floods());
      await Promise.all(working);
      await this.#nothingDropped();
    } finally {
      await this.#stop();
    }
    return this.failures;
  }

  fail(text) {
    if (this.failures.length < MAX_FAILURES) this.failures.push(text);
    // The run ends at the first failure, because further failures would only follow from it.
    if (!this.closing) this.until = 0;
  }

  open(id, room) {
    return this.streams.open(id, room);
  }

  filling(hall, binary = false) {
    const someone = this.crowd.some((walker) => walker.paused && walker.rooms.has(hall));
    return this.fillings.next({ large: !someone, binary });
  }

  /**
   * Waits until no client in a room is far behind, because events that do not fit into its write queue are dropped, as
   * they should be.
   */
  async room(hall) {
    while (this.crowd.some((walker) => walker.backlog(hall) > MAX_BACKLOG)) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  // === places ===

  /** Chooses a node, a transport, and usual or small network buffers for a client. */
  place() {
    const { chance } = this;
    return this.#at(chance.int(0, 1), chance.pick(CLIENTS), chance.next() < 0.5);
  }

  #at(index, transport, narrow) {
    const node = this.nodes[index];
    const label = `${index} ${this.engines[index]}, ${transport}${narrow ? ', narrow' : ''}`;
    return { node: narrow ? { url: this.narrow[index].url } : node, transport, label, index };
  }

  /**
   * The clients of a flood: on each node one that reads, and one that does not and has small network buffers. Both use
   * a WebSocket when the flood begins.
   */
  wets() {
    const transport = () => this.chance.pick(CLIENTS.filter((kind) => kind !== 'polling'));
    return [0, 1].flatMap((index) => [
      { ...this.#at(index, transport(), false), awake: true },
      { ...this.#at(index, transport(), true), awake: false },
    ]);
  }

  // === work ===

  get going() {
    return Date.now() < this.until;
  }

  async #walk(walker) {
    try {
      while (this.going) await walker.step();
      await walker.close();
    } catch (error) {
      this.fail(`${walker.name}: ${error.stack}`);
    }
  }

  /** Publishes as a backend through one node, with one stream to each room. */
  async #publish(index) {
    const streams = this.halls.map((hall) => this.open(`api@${index}>${hall}`, hall));
    while (this.going) {
      const stream = this.chance.pick(streams);
      await this.room(stream.room);
      const event = stream.next(this.filling(stream.room));
      const answer = await this.nodes[index].publish('soak', 'news', { hall: stream.room, ...event });
      if (answer.remote !== 'carried') this.fail(`a publish was not carried: ${JSON.stringify(answer)}`);
      stream.completed = event.n;
      this.count.published += 1;
      await new Promise((resolve) => setTimeout(resolve, PACE_MS));
    }
  }

  async #floods() {
    for (let round = 0; this.going; round += 1) {
      try {
        await flood(this, round);
      } catch (error) {
        this.fail(`flood ${round}: ${error.stack}`);
      }
    }
  }

  /**
   * Checks that clients that read lose nothing: every dropped event belongs to a flood. (Reason `closed`: an event may
   * be sent to a client that is just leaving.)
   */
  async #nothingDropped() {
    const drops = {};
    for (const node of this.nodes) {
      for (const reason of ['queue_full', 'slow_replaced', 'overtaken', 'closed']) {
        drops[reason] = (drops[reason] ?? 0) + (await node.metric('roomcast_deliveries_dropped_total', { nsp: '/soak', reason }));
      }
    }
    const sum = drops.queue_full + drops.slow_replaced + drops.overtaken;
    if (sum !== this.count.dropped) this.fail(`${sum} drops were counted, ${this.count.dropped} of them in floods`);
    for (const name of ['missed', 'not_carried', 'dropped', 'unconfirmed_joins']) {
      for (const node of this.nodes) drops[name] = (drops[name] ?? 0) + (await node.metric(`roomcast_cluster_${name}_total`));
    }
    if (drops.not_carried + drops.dropped > 0) this.fail('what nodes sent each other was lost');
    if (this.failures.length) this.fail(`counted: ${JSON.stringify(drops)}`);
  }

  // === processes ===

  async #start() {
    this.redis = await Redis.start();
    this.nodes = [];
    this.narrow = [];
    for (const engine of this.engines) {
      const env = { ROOMCAST_SERVER__ENGINE: engine, ROOMCAST_SERVER__QUEUE_BYTES: '8MB', ROOMCAST_SERVER__PING_TIMEOUT: '60s' };
      const node = await Node.start({ contracts: [join(HERE, 'soak.toml')], redis: this.redis, env });
      this.nodes.push(node);
      const proxy = start('python3', [join(HERE, 'narrow.py'), ...node.url.slice('http://'.length).split(':')]);
      const { port } = await line(proxy, (text) => (text.startsWith('{') ? JSON.parse(text) : undefined));
      this.narrow.push({ process: proxy, url: `http://127.0.0.1:${port}` });
    }
  }

  async #stop() {
    this.closing = true;
    await Promise.all(this.narrow?.map(({ process }) => stop(process, 'SIGKILL')) ?? []);
    await Promise.all(this.nodes?.map((node) => node.stop()) ?? []);
    await this.redis?.stop();
  }
}
