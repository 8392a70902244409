// A client that acts at random as clients do, and checks that it receives exactly the events that it must receive.
import { isDeepStrictEqual } from 'node:util';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { damage } from './streams.js';

const CAUGHT_UP_MS = 30_000;
const MAX_PAUSE_MS = 400;

export class Walker {
  /**
   * The client's rooms, and for each stream of a room the last received number, or the range in which the first may be.
   */
  rooms = new Map();
  #paused = false;

  constructor(soak, name, place) {
    Object.assign(this, { soak, name, place, chance: soak.chance });
  }

  async connect() {
    const { node, transport } = this.place;
    const client = new Client(node, { namespace: '/soak', transport });
    this.client = client;
    client.socket.onAny((name, event) => this.client === client && this.#take(name, event));
    client.socket.on('disconnect', (reason) => {
      if (this.client === client) this.soak.fail(`${this.name} was disconnected: ${reason}`);
    });
    // The harness' own inbox is not used, so it must not grow.
    client.inbox.push = () => 0;
    client.socket.io.engine.on('upgrade', () => (this.soak.count.upgrades += 1));
    await client.connected();
    this.soak.count.connects += 1;
  }

  // === what comes ===

  #take(name, event) {
    const { soak } = this;
    soak.count.events += 1;
    const wrong = damage(event) ?? this.#place(event);
    if (wrong) soak.fail(`${this.name} (${this.place.label}): ${name} ${event?.stream} ${event?.n}: ${wrong}`);
  }

  /** Whether the event is the next one of its stream. */
  #place({ stream: id, room, n }) {
    const stream = this.soak.streams.get(id);
    if (!stream || stream.room !== room || n > stream.started) return 'nobody has sent it';
    const here = this.rooms.get(room);
    if (!here) return 'it is not in that room';
    here.got += 1;
    const place = here.seen.get(id) ?? { after: 0, first: here.confirmed ? 1 : Infinity };
    // Until the client's join is acknowledged, only the order of events is promised, because the node may not receive
    // the other nodes' events yet.
    here.seen.set(id, here.confirmed ? n : { after: n, first: Infinity });
    if (place.first === undefined) {
      return n === place + 1 ? undefined : `${place + 1} should have come, of ${stream.completed} that were taken and ${stream.started} begun`;
    }
    if (n <= place.after) return `it comes after ${place.after}`;
    return n <= place.first ? undefined : `all from ${place.first} should have come`;
  }

  /**
   * Maximum number of events that may be in flight to the client or wait for it in the node, in all rooms of the
   * client. Returns 0 if the client is not in this room.
   */
  backlog(room) {
    if (!this.rooms.has(room)) return 0;
    const behind = ([name, { base, got }]) => this.soak.streams.total(name) - base - got;
    return [...this.rooms].map(behind).reduce((sum, one) => sum + one);
  }

  /** Waits until every event of the room that a node had accepted before this call has arrived. */
  async caughtUp(room) {
    const targets = this.soak.streams.of(room).map((stream) => [stream.id, stream.completed]);
    const { seen } = this.rooms.get(room);
    const missing = () =>
      targets.filter(([id, target]) => {
        const place = seen.get(id) ?? 0;
        // Events that were sent while the client joined may follow later.
        return place.first === undefined ? place < target : place.first <= target;
      });
    try {
      await eventually('everything has come', () => missing().length === 0, CAUGHT_UP_MS);
    } catch {
      const told = missing().map(([id, target]) => `${id}: ${JSON.stringify(seen.get(id))} of ${target}`);
      this.soak.fail(`${this.name} (${this.place.label}) lost in ${room}: ${told.join('; ')}`);
    }
    this.soak.count.checks += targets.length;
  }

  // === what it does ===

  /** Does one action, chosen at random. */
  async step() {
    const { chance } = this;
    const dice = chance.next();
    if (dice < 0.25) return await this.#enter(chance.pick(this.soak.halls));
    if (dice < 0.4) return await this.#leave();
    if (dice < 0.6) return await this.#echo();
    if (dice < 0.9) return await this.#say();
    if (dice < 0.96) return await this.#pause();
    return await this.#again();
  }

  async #enter(hall) {
    if (this.rooms.has(hall)) return;
    // Events of the room may arrive before the acknowledgement of the join. The first event of a stream may have any
    // number.
    const here = { seen: new Map(), confirmed: false, got: 0, base: this.soak.streams.total(hall) };
    this.rooms.set(hall, here);
    await this.#ask('enter', { hall });
    // After the acknowledgement no event may be missing: the first event to arrive is the next one that is sent, or an
    // earlier one.
    for (const { id, started } of this.soak.streams.of(hall)) {
      here.seen.set(id, { after: here.seen.get(id)?.after ?? 0, first: started + 1 });
    }
    here.confirmed = true;
    // Events from before the join do not arrive. Events that waited for the join arrived before the acknowledgement.
    here.base = this.soak.streams.total(hall) - here.got;
    this.soak.count.joins += 1;
  }

  async #leave(hall = this.chance.pick([...this.rooms.keys()])) {
    if (hall === undefined) return;
    await this.caughtUp(hall);
    await this.#ask('leave', { hall });
    this.rooms.delete(hall);
  }

  async #echo() {
    const { fillings } = this.soak;
    const value = { nested: [fillings.next({ binary: true, large: true }), { deep: fillings.next({ binary: true }) }], n: 1.5 };
    const back = await this.#ask('echo', value);
    if (!isDeepStrictEqual(plain(back), plain(value))) this.soak.fail(`${this.name}: an echo is not what was sent`);
    this.soak.count.echoes += 1;
  }

  /**
   * Sends a few events in a row to a room that the client may or may not be in. There is one stream per room and node,
   * because there is no order between nodes.
   */
  async #say() {
    const hall = this.chance.pick(this.soak.halls);
    await this.soak.room(hall);
    const stream = this.soak.open(`${this.name}@${this.place.index}>${hall}`, hall);
    const asked = [];
    for (let left = this.chance.int(1, 6); left > 0; left -= 1) {
      const event = stream.next(this.soak.filling(hall, true));
      asked.push(this.#ask('say', { hall, ...event }).then(() => (stream.completed = Math.max(stream.completed, event.n))));
    }
    await Promise.all(asked);
    this.soak.count.said += asked.length;
  }

  /** Stops reading for a while. Small network buffers are soon full, and further events wait in the node. */
  async #pause() {
    const socket = this.client.socket.io.engine.transport.ws?._socket;
    if (!socket) return;
    this.#paused = true;
    socket.pause();
    await new Promise((resolve) => setTimeout(resolve, this.chance.int(10, MAX_PAUSE_MS)));
    socket.resume();
    this.#paused = false;
    this.soak.count.pauses += 1;
  }

  get paused() {
    return this.#paused;
  }

  async #again() {
    await this.close();
    this.place = this.soak.place();
    await this.connect();
  }

  /** Disconnects when every event has arrived. */
  async close() {
    for (const hall of this.rooms.keys()) await this.caughtUp(hall);
    const { client } = this;
    this.client = undefined;
    client.close();
    this.rooms = new Map();
  }

  async #ask(name, value) {
    try {
      const answer = await this.client.socket.timeout(CAUGHT_UP_MS).emitWithAck(name, value);
      if (name !== 'echo' && answer?.success !== true) this.soak.fail(`${this.name}: ${name}: ${JSON.stringify(answer)}`);
      return answer;
    } catch (error) {
      this.soak.fail(`${this.name} (${this.place.label}): ${name}: ${error.message}`);
      throw error;
    }
  }
}

function plain(value) {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (Array.isArray(value)) return value.map(plain);
  return value !== null && typeof value === 'object'
    ? Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]))
    : value;
}
