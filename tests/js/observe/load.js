// Makes two nodes, with both engines and one Redis, count everything that nodes can count.
import { join } from 'node:path';
import { Emitter } from '@socket.io/redis-emitter';
import { createClient } from 'redis';
import { Backend } from '../harness/backend.js';
import { Client } from '../harness/client.js';
import { Node, ROOT } from '../harness/node.js';
import { openPolling } from '../harness/raw.js';
import { Redis } from '../harness/redis.js';
import { comeBack, cut } from '../harness/returning.js';
import { capability, seconds, token } from '../harness/token.js';

const PAUSE_MS = 100;
/** Limits so low that the load reaches all of them. */
const LIMITS = {
  ROOMCAST_AUTH__LEEWAY: '500ms',
  ROOMCAST_LIMITS__EVENTS_PER_SOCKET: '60/1s burst 60',
  ROOMCAST_LIMITS__MAX_CONNECTIONS_PER_IP: '1000',
  ROOMCAST_LIMITS__MAX_ROOMS_PER_SOCKET: '4',
  ROOMCAST_LIMITS__MAX_SOCKETS_PER_USER: '1000',
  ROOMCAST_SERVER__CORS_ORIGINS: '["https://app.example.com"]',
  ROOMCAST_SERVER__QUEUE: '64',
  // With this setting, a node forwards requests that belong to the other node's sessions.
  ROOMCAST_CLUSTER__LISTEN: '127.0.0.1:0',
  ROOMCAST_CLUSTER__SECRET: 'a secret of the cluster, of the tests 0123456789',
  // A long time-out, so that the nodes keep the sessions of clients that do not poll.
  ROOMCAST_SERVER__PING_TIMEOUT: '2m',
};
const fixture = (name) => join(ROOT, `tests/js/fixtures/${name}.toml`);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Load {
  static async start() {
    const load = new Load();
    load.redis = await Redis.start();
    load.backend = await Backend.start();
    const contracts = ['embedded:chat', 'embedded:jobs-feed', 'embedded:harmonia-songs'];
    // No server listens at the URL of the key set, so every fetch of the key set fails.
    const toml = [
      load.backend.toml('backend', 'retries = 1\ntimeout = "500ms"\n'),
      load.backend.toml('songs'),
      '[auth.jwks]\nurl = "http://127.0.0.1:9/keys"\nrefresh = "1s"\ntimeout = "1s"\n',
    ].join('');
    const node = (engine) =>
      Node.start({
        contracts: [...contracts, ...['hooked', 'back', 'tokens'].map(fixture)],
        redis: load.redis,
        toml,
        env: { ...LIMITS, ROOMCAST_SERVER__ENGINE: engine },
      });
    load.nodes = [await node('native'), await node('socketioxide')];
    load.clients = [];
    load.publisher = createClient({ url: load.redis.url, disableOfflineQueue: true });
    load.publisher.on('error', () => {});
    await load.publisher.connect();
    // While Redis is not reachable, the emitter's publishes fail at once instead of waiting.
    load.emitter = new Emitter({ publish: (...message) => load.publisher.publish(...message).catch(() => 0) });
    load.stalled = 0;
    load.stopped = false;
    load.faults = [];
    return load;
  }

  async connect(node, options) {
    const client = await Client.connect(node, options);
    this.clients.push(client);
    return client;
  }

  /** Connects clients with every transport and every contract to both nodes. */
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
      await this.stall(node);
    }
    this.returning = await this.connect(this.nodes[0], { namespace: '/back', user: 'back' });
    await this.returning.ask('follow-shown', 'l');
    this.collector = await this.connect(this.nodes[1], { user: 'collector' });
    this.spammer = await this.connect(this.nodes[1], { user: 'spammer' });
  }

  /** Connects a client that no longer polls, so that its write queue fills up to the limit. */
  async stall(node) {
    const url = await openPolling(node, 'stalled');
    await (await fetch(url, { method: 'POST', body: '42["room:join",{"room":"hall"}]' })).text();
    this.stalled += 1;
  }

  /**
   * Starts all kinds of load, which repeat until `end` stops them. A request that fails is noted in `faults`, and the
   * load goes on.
   */
  run() {
    const work = [this.chatting(), this.publishing(), this.asking(), this.hooking(), this.coming(), this.returns(), this.tokens(), this.limits(), this.passing()];
    this.done = Promise.all([...work, this.emitting()]);
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
    await this.publisher.disconnect();
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
        // An event for several rooms goes to every node. Here no client of the other node is in them.
        await node.api('POST', '/api/v1/emit', { namespace: '/', rooms: ['nobody', 'nowhere'], event: 'news', args: [round] });
        // This request fails while Redis is not reachable.
        await node.api('PUT', '/api/v1/owners', { namespace: '/', room: 'generation-g', owner: 'singer', ttl: '1h' });
      }
    });
  }

  /** Asks a client that has no listener for the event, so that every request times out. */
  async asking() {
    const question = { namespace: '/', users: ['singer'], event: 'confirm', timeout: '1s' };
    await this.again(async () => {
      await this.nodes[0].api('POST', '/api/v1/ask', question);
    });
  }

  async hooking() {
    const callers = this.clients.filter(({ namespace }) => namespace === '/hooked');
    this.backend.answer = (event) => (event.type.endsWith('event') && Math.random() < 0.5 ? { status: 500 } : { ok: true });
    await this.again(async (round) => {
      await Promise.all(callers.map((caller) => caller.ask(round % 2 ? 'do' : 'retry', {})));
    });
  }

  /** Clients connect and disconnect, some with invalid tokens. */
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

  /** Clients lose their connection and come back. */
  async returns() {
    await this.again(async (round) => {
      await this.nodes[1].api('POST', '/api/v1/events', { contract: 'back', event: 'told', data: { log: 'l', n: round } });
      await cut(this.returning);
      await comeBack(this.returning);
      await this.returning.ask('follow-shown', 'l');
    });
    if (!this.returning.socket.connected) await comeBack(this.returning);
  }

  /** Clients use tokens that expire, are replaced and are revoked; and capabilities. */
  async tokens() {
    const options = (user, exp) => ({ namespace: '/tokens', token: token({ sub: user, exp }) });
    await this.again(async (round) => {
      const node = this.nodes[round % 2];
      const ending = await Client.connect(node, options('ending', seconds(2)));
      const kept = await Client.connect(node, options('kept', seconds(60)));
      await kept.ask('token:refresh', { token: token({ sub: 'kept', exp: seconds(120) }) });
      await kept.ask('token:refresh', { token: 'none' });
      await kept.ask('enter', { id: 'x', capability: capability('own:x') });
      await kept.ask('enter', { id: 'x', capability: 'none' });
      await this.nodes[0].api('POST', '/api/v1/revocations', { users: ['kept'] });
      await kept.ended(2_000);
      await this.nodes[0].api('DELETE', '/api/v1/revocations', { users: ['kept'] });
      await this.nodes[0].api('POST', '/api/v1/revocations', { users: [`gone-${round % 5}`] });
      await ending.ended(4_000);
      for (const client of [ending, kept]) client.close();
    });
  }

  /** Sends requests that are refused before a session exists, and connects a client that exceeds limits. */
  async limits() {
    const ask = async (node, query, headers) => await (await fetch(`${node.url}/socket.io/?EIO=4&${query}`, { headers })).text();
    await this.again(async (round) => {
      const node = this.nodes[round % 2];
      await ask(node, 'transport=polling', { origin: 'https://other.example.com' });
      await ask(node, 'transport=polling&sid=nobodys');
      await ask(node, 'transport=pigeon');
      for (let at = 0; at < 80; at += 1) this.spammer.send('typing:start', { room: 'hall' });
      await pause(1_000);
    });
  }

  /** Opens a session and sends its requests to the other node, as a proxy without sticky sessions does. */
  async passing() {
    const [one, two] = this.nodes.map(({ url }) => url);
    await this.again(async () => {
      const url = await openPolling(this.nodes[0], 'passing');
      const elsewhere = url.replace(one, two);
      await (await fetch(elsewhere, { method: 'POST', body: '42["room:join",{"room":"passing"}]' })).text();
      await (await fetch(elsewhere)).text();
      await (await fetch(elsewhere, { method: 'POST', body: '1' })).text();
    });
  }

  /** Publishes through Redis, as emitters in other processes do. */
  async emitting() {
    await this.again(async (round) => {
      this.emitter.to('hall').emit('news', round);
      this.emitter.in(this.collector.id).socketsJoin(['a', 'b', 'c', 'd', 'e']);
      this.emitter.to('nobody').emit('news', round);
      await this.publisher.publish('socket.io#/#', 'rubbish');
    });
  }
}
