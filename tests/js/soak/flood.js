// Clients stop reading while the nodes publish more events than fit into the clients' write queues. At the end, the
// missing events are those that the nodes counted.
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { damage } from './streams.js';

const KINDS = ['flood', 'oldest', 'latest'];
const DROPPED = 'roomcast_deliveries_dropped_total';
const SETTLED_MS = 60_000;
// This is much less than the time after which a client that does not read is disconnected.
const MAX_PAUSE_MS = 10_000;
const FILLING = 'f'.repeat(60_000);

/** Runs one round: a new room with clients on every node, some of which do not read. */
export async function flood(soak, round) {
  const pit = `${round}`;
  const room = `pit:${pit}`;
  const divers = [];
  for (const place of soak.wets()) divers.push(await dive(soak, place, pit));
  const before = await dropped(soak);
  for (const diver of divers) diver.pause();
  const until = Date.now() + MAX_PAUSE_MS;
  const most = soak.chance.int(60, 90);
  const streams = Object.fromEntries(KINDS.map((kind) => [kind, soak.open(`${kind}-${round}`, room)]));
  for (let n = 0; n < most && Date.now() < until; n += 1) {
    for (const kind of KINDS) await publish(soak, streams[kind], kind, pit, FILLING);
    // After every tenth event, waits for the clients that read, so that they do not fall behind.
    if (n % 10 === 9) await Promise.all(divers.filter(({ awake }) => awake).map((diver) => diver.has(streams, n + 1)));
  }
  divers.forEach((diver) => diver.resume());
  // The last event of each kind is sent until it reaches all clients. When it has arrived, the queues are empty.
  await settled(soak, divers, streams, pit);
  const missing = divers.reduce((sum, diver) => sum + diver.missing(streams), 0);
  const counted = (await dropped(soak)) - before;
  if (missing !== counted) soak.fail(`flood ${round}: ${missing} events are missing, ${counted} were counted as dropped`);
  for (const diver of divers.filter(({ awake }) => awake)) {
    if (diver.missing(streams) > 0) soak.fail(`flood ${round}: ${diver.label} reads, and misses ${diver.missing(streams)}`);
  }
  soak.count.dropped += missing;
  soak.count.floods += 1;
  divers.forEach((diver) => diver.close());
}

async function publish(soak, stream, kind, pit, filling) {
  const event = stream.next(filling);
  // All events of a stream go through the same node, because there is no order between nodes.
  await soak.nodes[stream.id.length % 2].publish('soak', kind, { pit, ...event });
  stream.completed = event.n;
}

/** Sends until a last event of each kind reaches all clients. */
async function settled(soak, divers, streams, pit) {
  const until = Date.now() + SETTLED_MS;
  for (;;) {
    for (const kind of KINDS) await publish(soak, streams[kind], kind, pit, null);
    const all = () => divers.every((diver) => KINDS.every((kind) => diver.last(streams[kind]) === streams[kind].started));
    try {
      return await eventually('the last events have come', all, 1_000);
    } catch (error) {
      if (Date.now() > until) {
        const told = divers.map(({ label, seen }) => `${label}: ${JSON.stringify([...seen.values()].map(({ last }) => last))}`);
        soak.fail(`a flood does not settle: ${told.join(', ')}`);
        return undefined;
      }
    }
  }
}

/** The sum of the nodes' counters of dropped events. */
async function dropped(soak) {
  let sum = 0;
  for (const node of soak.nodes) {
    for (const reason of ['queue_full', 'slow_replaced']) sum += await node.metric(DROPPED, { nsp: '/soak', reason });
  }
  return sum;
}

async function dive(soak, place, pit) {
  const client = await Client.connect(place.node, { namespace: '/soak', transport: place.transport });
  client.inbox.push = () => 0;
  const answer = await client.ask('dive', { pit });
  if (answer.success !== true) soak.fail(`dive: ${JSON.stringify(answer)}`);
  const seen = new Map();
  const { label, awake } = place;
  let closing = false;
  client.socket.on('disconnect', (reason) => closing || soak.fail(`${label} was disconnected: ${reason}`));
  client.socket.onAny((name, event) => {
    soak.count.events += 1;
    const stream = seen.get(event.stream) ?? { last: 0, count: 0 };
    seen.set(event.stream, stream);
    const wrong = damage(event) ?? (event.n > stream.last ? undefined : `it comes after ${stream.last}`);
    if (wrong) soak.fail(`${label}: ${name} ${event.stream} ${event.n}: ${wrong}`);
    stream.last = event.n;
    stream.count += 1;
  });
  const ws = () => client.socket.io.engine.transport.ws?._socket;
  return {
    label,
    awake,
    seen,
    pause: () => awake || ws()?.pause(),
    resume: () => awake || ws()?.resume(),
    last: ({ id }) => seen.get(id)?.last ?? 0,
    has: async (streams, n) => {
      const all = () => KINDS.every((kind) => (seen.get(streams[kind].id)?.last ?? 0) >= n);
      await eventually('who reads has everything', all, SETTLED_MS).catch((error) => soak.fail(`${label}: ${error.message}`));
    },
    missing: (streams) => KINDS.reduce((sum, kind) => sum + streams[kind].started - (seen.get(streams[kind].id)?.count ?? 0), 0),
    close: () => {
      closing = true;
      client.close();
    },
  };
}
