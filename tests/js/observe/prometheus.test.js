// A real Prometheus scrapes two real nodes under load: every query of dashboards and rules has a result.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Client } from '../harness/client.js';
import { eventually } from '../harness/eventually.js';
import { dashboards } from './dashboards.js';
import { Load } from './load.js';
import { Prometheus, promtool } from './prometheus.js';
import { compared, queriesOf, variablesOf } from './queries.js';

const CALM_MS = 6_000;
const AWAY_MS = 2_500;
const AFTER_MS = 9_000;
/** The queries must have had a result within this number of seconds. */
const WINDOW = 40;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let load;
let prometheus;

before(async () => {
  load = await Load.start();
  prometheus = await Prometheus.start(load.nodes);
  await load.populate();
  load.run();
  await pause(CALM_MS);
  await load.redis.kill();
  await pause(AWAY_MS);
  await load.redis.up();
  await pause(AFTER_MS);
}, { timeout: 90_000 });

after(async () => {
  await load?.stop();
  await prometheus?.stop();
});

async function empties(queries) {
  const empty = [];
  for (const [where, query] of queries) {
    const numbers = await prometheus.numbers(query, WINDOW);
    if (numbers.length === 0) empty.push(`${where}: ${query}`);
  }
  return empty;
}

for (const [name, dashboard] of Object.entries(dashboards)) {
  describe(name, () => {
    test('every query has an answer', async () => {
      assert.deepEqual(await empties(queriesOf(dashboard)), []);
    });

    test('every variable has values', async () => {
      for (const [variable, label, series] of variablesOf(dashboard)) {
        const values = await prometheus.api(`label/${label}/values`, { 'match[]': series });
        assert.ok(values.length > 0, variable);
      }
    });
  });
}

describe('the rules', () => {
  test('all evaluate, and every expression has an answer without its threshold', async () => {
    const rules = await prometheus.rules();
    assert.deepEqual(rules.filter(({ lastError }) => lastError).map(({ name, lastError }) => [name, lastError]), []);
    const queries = rules.map(({ type, name, query }) => [name, type === 'alerting' ? compared(query) : query]);
    assert.deepEqual(await empties(queries), []);
  });

  test('what was recorded is there', async () => {
    const recorded = (await prometheus.rules()).filter(({ type }) => type === 'recording').map(({ name }) => [name, name]);
    assert.ok(recorded.length > 0);
    assert.deepEqual(await empties(recorded), []);
  });

  test('the alert of a Redis that is away was on its way while it was', async () => {
    assert.ok((await prometheus.numbers('ALERTS{alertname="RoomcastRedisDown"}', WINDOW)).length > 0);
    assert.ok((await prometheus.numbers('ALERTS{alertname="RoomcastNotCarried"}', WINDOW)).length > 0);
  });
});

describe('the numbers', () => {
  test('what the load did was counted', async () => {
    const counted = {
      roomcast_recoveries_total: ['result="recovered"'],
      roomcast_recovery_events_total: [''],
      roomcast_history_replayed_total: [''],
      roomcast_socketio_received_total: ['kind="broadcast"', 'kind="act"'],
      roomcast_socketio_dropped_total: ['reason="malformed"'],
      roomcast_handshakes_refused_total: ['reason="origin"', 'reason="malformed"', 'reason="unknown_session"'],
      roomcast_joins_refused_total: [''],
      roomcast_rate_limited_total: ['scope="socket"'],
      roomcast_deliveries_dropped_total: ['reason="queue_full"'],
      roomcast_sessions_ended_total: ['reason="expired"', 'reason="revoked"'],
      roomcast_refreshes_total: ['result="ok"'],
      roomcast_capabilities_total: ['result="ok"', 'result!="ok"'],
      roomcast_revocations: [''],
      roomcast_queue_bytes: [''],
      roomcast_limits_present: ['what="addresses"', 'what="users"'],
    };
    const queries = Object.entries(counted).flatMap(([metric, list]) => list.map((labels) => `sum(${metric}{${labels}})`));
    const missing = [];
    for (const query of queries) {
      if (!((await prometheus.now(query))[0]?.value > 0)) missing.push(query);
    }
    assert.deepEqual(missing, []);
    for (const { labels, value } of await prometheus.now('roomcast_queue_bytes')) {
      assert.ok(value > 0, `somebody on ${labels.instance} does not poll`);
    }
  });

  test('promtool finds nothing to say against the exposition of either engine', async () => {
    for (const node of load.nodes) {
      const { body, headers } = await node.api('GET', '/metrics', undefined, { key: null });
      assert.match(headers.get('content-type'), /^text\/plain; version=0\.0\.4/);
      assert.equal(promtool(['check', 'metrics'], body), '');
      for (const line of body.split('\n').filter((line) => line.startsWith('# HELP'))) assert.match(line, /\.$/);
    }
  });

  test('canaries are received or lost, each once, and nothing else', async () => {
    await load.end();
    for (const [here, there] of [load.nodes, [...load.nodes].reverse()]) {
      await eventually('every canary is accounted for', async () => {
        const sent = async () => await there.metric('roomcast_canaries_sent_total');
        const before = await sent();
        const labels = { from: there.id };
        const received = await here.metric('roomcast_canaries_received_total', labels);
        const lost = await here.metric('roomcast_canaries_lost_total', labels);
        // At most two canaries are neither received nor lost: a node does not count those before the first that
        // arrived.
        const missing = before - received - lost;
        assert.ok(missing >= -1 && missing <= 2, `${before} sent, ${received} received, ${lost} lost`);
        assert.ok(lost >= 1, 'while Redis was away, some were lost');
        return true;
      });
    }
  });

  test('nothing that strangers and backends make up becomes a series', async () => {
    const series = async (node) => {
      const { body } = await node.api('GET', '/metrics', undefined, { key: null });
      return new Set(body.split('\n').filter((line) => line && !line.startsWith('#')).map((line) => line.slice(0, line.lastIndexOf(' '))));
    };
    for (const node of load.nodes) {
      const odd = async (word) => {
        const client = await Client.connect(node, { user: word });
        await client.ask(word, {});
        await client.ask('room:join', { room: word });
        client.close();
        await new Client(node, { namespace: `/${word}`, user: word }).connected().catch(() => undefined);
        await node.api('GET', `/api/v1/${word}/${word}`);
        await node.api('POST', '/api/v1/events', { contract: word, event: word, data: {} });
        await node.api('POST', '/api/v1/events', { contract: 'chat', event: word, data: {} });
        await node.api('POST', '/api/v1/emit', { namespace: `/${word}`, event: word, args: [] });
        await node.api('POST', '/api/v1/emit', { namespace: '/', rooms: [word], event: word, args: [] });
        await fetch(`${node.url}/socket.io/?EIO=${word}&transport=${word}&sid=${word}`, { method: 'PUT', headers: { origin: `http://${word}` } });
        await fetch(`${node.url}/${word}`);
      };
      // The first call makes every kind of mistake once, so that all series exist.
      await odd('first');
      const before = await series(node);
      for (let at = 0; at < 5; at += 1) await odd(`made-up-${at}`);
      assert.deepEqual([...(await series(node))].filter((found) => !before.has(found)), []);
    }
  });

  test('gauges are what is there', async () => {
    const sum = async (query) => (await prometheus.now(`sum(${query})`))[0].value;
    await eventually('the guests are gone', async () => {
      const stay = load.clients.length + load.stalled;
      assert.equal(await sum('roomcast_connections'), stay);
      // The connection of a refused client may live until server.connect_timeout.
      assert.ok((await sum('roomcast_transports')) >= stay);
      return true;
    });
    const known = await prometheus.now('roomcast_cluster_nodes');
    assert.deepEqual(known.map(({ value }) => value), [2, 2]);
  });
});
