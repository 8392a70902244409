// Everything that nodes count, on two nodes of both engines that share a Redis.
import { join } from 'node:path';
import { Backend } from '../harness/backend.js';
import { Client } from '../harness/client.js';
import { Node, ROOT } from '../harness/node.js';
import { Redis } from '../harness/redis.js';

const PAUSE_MS = 100;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Load {
  static async start() {
    const load = new Load();
    load.redis = await Redis.start();
    load.backend = await Backend.start();
    const contracts = ['embedded:chat', 'embedded:jobs-feed', 'embedded:harmonia-songs'];
    // Nobody is there: every fetch of the key set fails.
    const toml = [
      load.backend.toml('backend', 'retries = 1\ntimeout = "500ms"\n'),
      load.backend.toml('songs'),
      '[auth.jwks]\nurl = "http://127.0.0.1:9/keys"\nrefresh = "1s"\ntimeout = "1s"\n',
    ].join('');
    const node = (engine) =>
      Node.start({
        contracts: [...contracts, join(ROOT, 'tests/js/fixtures/hooked.toml')],
        redis: load.redis,
        toml,
        env: { ROOMCAST_SERVER__ENGINE: engine },
      });
    load.nodes = [await node('native'), await node('socketioxide')];
    load.clients = [];
    load.stopped = false;
    load.faults = [];
    return load;
  }

  async connect(node, options) {
    const client = await Client.connect(node, options);
    this.clients.push(client);
    return client;
  }

  /** Clients of every transport and of every contract, on both nodes. */
  async populate() {
    for (const node of this.nodes) {
      for (const transport of ['websocket', 'polling', 'upgrade']) {
        const chat = await this.connect(node, { user: `u-${transport}`, transport });
        await chat.ask('room:join', { room: 'hall' });
        const jobs = await this.connect(node, { namespace: '/jobs', transport });
        await jobs.ask('subscribe:jobs', {});
      }
      const hooked = await this.connect(node, { namespace: '/hooked', user: 'h' });
      await hooked.ask('enter', { room: 'r' });
      await this.nodes[0].own('/', 'generation-g', 'singer');
      const singer = await this.connect(node, { user: 'singer' });
      await singer.ask('join-generation', 'g');
    }
  }

  /** Goes on until told to stop; an answer that does not come is an answer as well. */
  run() {
    this.done = Promise.all([this.chatting(), this.publishing(), this.hooking(), this.coming()]);
  }

  async end() {
    this.stopped = true;
    await this.done;
  }

  async stop() {
    this.stopped = true;
    this.clients.forEach((client) => client.close());
    await Promise.all(this.nodes.map((node) => node.stop()));
    await this.backend.stop();
    await this.redis.stop();
  }

  async again(work) {
    for (let round = 0; !this.stopped; round += 1) {
      await work(round).catch((error) => this.faults.push(String(error)));
      await pause(PAUSE_MS);
    }
  }

  async chatting() {
    const talkers = this.clients.filter(({ namespace, user }) => namespace === '/' && user?.startsWith('u-'));
    await this.again(async (round) => {
      for (const talker of talkers) {
        await talker.ask('message', { from: talker.user, room: 'hall', content: `${round}`, type: 'text' });
        talker.send('typing:start', { room: 'hall' });
        await talker.ask('nobody-knows-this', round);
      }
    });
  }

  async publishing() {
    const progress = (at) => ({ generationId: 'g', progress: at % 100, status: 'running', currentStep: 'lyrics' });
    await this.again(async (round) => {
      for (const node of this.nodes) {
        await node.api('POST', '/api/v1/events', { contract: 'jobs-feed', event: 'job:update', data: { jobId: 'j', status: 's' }, id: `id-${round >> 2}` });
        await node.api('POST', '/api/v1/events', { contract: 'harmonia-songs', event: 'metadata-generation-progress', data: progress(round) });
        await node.api('POST', '/api/v1/emit', { namespace: '/', rooms: ['hall'], event: 'news', args: [round] });
        // Unavailable while Redis is away.
        await node.api('PUT', '/api/v1/owners', { namespace: '/', room: 'generation-g', owner: 'singer', ttl: '1h' });
      }
    });
  }

  async hooking() {
    const callers = this.clients.filter(({ namespace }) => namespace === '/hooked');
    this.backend.answer = (event) => (event.type.endsWith('event') && Math.random() < 0.5 ? { status: 500 } : { ok: true });
    await this.again(async (round) => {
      await Promise.all(callers.map((caller) => caller.ask(round % 2 ? 'do' : 'retry', {})));
    });
  }

  /** Clients come and go, some with tokens that do not hold. */
  async coming() {
    await this.again(async (round) => {
      const node = this.nodes[round % 2];
      const client = await Client.connect(node, { user: 'guest', transport: round % 3 ? 'websocket' : 'polling' });
      client.close();
      const stranger = new Client(node, { token: 'not-a-token' });
      await stranger.connected().catch(() => undefined);
      stranger.close();
    });
  }
}
