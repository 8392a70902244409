// For every alert: series for which the alert fires, series for which it does not fire, and the time of the check.
// Series have one sample per minute.

export const NODE = { job: 'roomcast', instance: 'n1' };
const FLEET = { job: 'roomcast' };
const text = (labels) => Object.entries(labels).map(([key, value]) => `${key}="${value}"`).join(', ');
const of = (name, labels = {}) => `${name}{${text({ ...NODE, ...labels })}}`;
const other = (name, labels = {}) => of(name, { instance: 'n2', ...labels });
const still = (value) => `${value}x120`;
const grows = (by) => `0+${by}x120`;

/** A case with a counter: the alert fires if the counter grows, and not if it stays. */
const counter = (name, labels, at = '15m', more = {}) => ({
  fires: { [of(name, labels)]: grows(6) },
  quiet: { [of(name, labels)]: still(60) },
  at,
  ...more,
});

/** A case with two counters: the alert fires if the first is a large share of the second. */
const shareOf = ([name, labels], [whole, wholeLabels], at, more) => ({
  fires: { [of(name, labels)]: grows(60), [of(whole, wholeLabels)]: grows(60) },
  quiet: { [of(name, labels)]: grows(0), [of(whole, wholeLabels)]: grows(60) },
  at,
  ...more,
});

/** A case with a histogram: the alert fires if all observations are slow, and not if all are fast. */
const slow = (name, labels, fast, at) => {
  const bucket = (le) => of(`${name}_bucket`, { ...labels, le });
  return {
    fires: { [bucket(fast)]: grows(0), [bucket('5')]: grows(60), [bucket('+Inf')]: grows(60) },
    quiet: { [bucket(fast)]: grows(60), [bucket('5')]: grows(60), [bucket('+Inf')]: grows(60) },
    at,
    labels: { ...NODE, ...labels },
  };
};

/** A case with a gauge: the alert fires for the value `bad`, and not for `good`. */
const gauge = (name, bad, good, at, more = {}) => ({
  fires: { [of(name)]: still(bad), ...more },
  quiet: { [of(name)]: still(good), ...more },
  at,
});

const FROM = { from: 'n2' };
const HOOK = { hook: 'backend' };
const build = { [of('roomcast_build_info', { version: '1' })]: still(1) };

export const CASES = {
  RoomcastNodeDown: {
    fires: { [of('up')]: '1x9 0x60', [of('roomcast_build_info')]: '1x9 _x60' },
    quiet: { [of('up')]: still(0), [other('up')]: still(1), [other('roomcast_build_info')]: still(1) },
    at: '15m',
  },
  RoomcastNodeNotReady: {
    fires: { [of('roomcast_ready')]: still(0), [of('roomcast_drain_state', { state: 'leaving' })]: still(0) },
    // A draining node is not ready on purpose, so the alert does not fire.
    quiet: { [of('roomcast_ready')]: still(0), [of('roomcast_drain_state', { state: 'leaving' })]: still(1) },
    at: '6m',
  },
  RoomcastDrainStuck: {
    fires: { [of('roomcast_drain_state', { state: 'closing' })]: still(1) },
    quiet: { [of('roomcast_drain_state', { state: 'serving' })]: still(1), [of('roomcast_drain_state', { state: 'closing' })]: still(0) },
    at: '35m',
  },
  RoomcastNodeBusy: {
    fires: { [of('roomcast_runtime_busy_seconds_total')]: grows(114), [of('roomcast_runtime_workers')]: still(2) },
    quiet: { [of('roomcast_runtime_busy_seconds_total')]: grows(60), [of('roomcast_runtime_workers')]: still(2) },
    at: '20m',
  },
  RoomcastFileDescriptors: {
    fires: { [of('process_open_fds')]: still(900), [of('process_max_fds')]: still(1000), ...build },
    // A series of another program with the same job does not count.
    quiet: { [of('process_open_fds')]: still(900), [of('process_max_fds')]: still(1000), [other('roomcast_build_info')]: still(1) },
    at: '6m',
  },
  RoomcastVersionsMixed: {
    fires: { ...build, [other('roomcast_build_info', { version: '2' })]: still(1) },
    quiet: { ...build, [other('roomcast_build_info', { version: '1' })]: still(1) },
    at: '61m',
    labels: FLEET,
  },
  RoomcastFull: counter('roomcast_handshakes_refused_total', { reason: 'crowded' }),
  RoomcastClientsRefused: shareOf(['roomcast_connections_refused_total', { code: 'c' }], ['roomcast_connections_opened_total'], '15m', { labels: FLEET }),
  RoomcastReconnectStorm: {
    fires: { [of('roomcast_connections_opened_total')]: grows(6000), [of('roomcast_connections')]: still(3000) },
    // A restart of a small fleet does not count as a storm.
    quiet: { [of('roomcast_connections_opened_total')]: grows(600), [of('roomcast_connections')]: still(10) },
    at: '15m',
    labels: FLEET,
  },
  RoomcastKeysNotRefreshed: {
    fires: { [of('roomcast_jwks_refreshes_total', { result: 'failed' })]: grows(1), [of('roomcast_jwks_refreshes_total', { result: 'ok' })]: still(5) },
    quiet: { [of('roomcast_jwks_refreshes_total', { result: 'failed' })]: grows(1), [of('roomcast_jwks_refreshes_total', { result: 'ok' })]: grows(1) },
    at: '60m',
  },
  RoomcastSlowClients: shareOf(['roomcast_deliveries_dropped_total', { reason: 'queue_full' }], ['roomcast_deliveries_total'], '20m'),
  RoomcastEventsFail: shareOf(['roomcast_events_received_total', { result: 'UNAVAILABLE' }], ['roomcast_events_received_total', { result: 'ok' }], '20m', { labels: FLEET }),
  RoomcastApiFails: shareOf(['roomcast_api_requests_total', { status: '503' }], ['roomcast_api_requests_total', { status: '202' }], '15m', { labels: FLEET }),
  RoomcastHistoryFails: counter('roomcast_history_errors_total', { op: 'append' }, '15m', { labels: { ...FLEET, op: 'append' } }),
  RoomcastPresenceResyncs: {
    fires: { [of('roomcast_presence_resyncs_total', { reason: 'gone' })]: grows(1) },
    quiet: { [of('roomcast_presence_resyncs_total', { reason: 'start' })]: grows(1), [of('roomcast_presence_resyncs_total', { reason: 'gone' })]: still(9) },
    at: '20m',
  },
  RoomcastRedisDown: gauge('roomcast_redis_up', 0, 1, '2m'),
  RoomcastClusterConflict: {
    fires: { [of('roomcast_cluster_conflicts', { kind: 'same_id' })]: still(1) },
    quiet: { [of('roomcast_cluster_conflicts', { kind: 'same_id' })]: still(0) },
    at: '10m',
    labels: { ...NODE, kind: 'same_id' },
  },
  RoomcastRedisSlow: slow('roomcast_redis_round_trip_seconds', {}, '0.1', '20m'),
  RoomcastRedisReconnects: counter('roomcast_redis_reconnects_total', {}, '20m'),
  RoomcastNotCarried: counter('roomcast_cluster_not_carried_total', { reason: 'away' }, '10m', { labels: { ...NODE, reason: 'away' } }),
  RoomcastMissed: counter('roomcast_cluster_missed_total', {}, '10m'),
  RoomcastReceiveDropped: counter('roomcast_cluster_dropped_total', { reason: 'full' }, '10m', { labels: { ...NODE, reason: 'full' } }),
  RoomcastCanariesLost: shareOf(['roomcast_canaries_lost_total', FROM], ['roomcast_canaries_received_total', FROM], '15m', { labels: { ...NODE, ...FROM } }),
  RoomcastCanariesLate: slow('roomcast_canary_delay_seconds', FROM, '0.25', '20m'),
  RoomcastClusterSplit: {
    fires: { ...build, [other('roomcast_build_info')]: still(1), [of('roomcast_cluster_nodes')]: still(1), [other('roomcast_cluster_nodes')]: still(2) },
    quiet: { ...build, [other('roomcast_build_info')]: still(1), [of('roomcast_cluster_nodes')]: still(2), [other('roomcast_cluster_nodes')]: still(2) },
    at: '5m',
  },
  RoomcastHookFails: shareOf(['roomcast_hook_requests_total', { ...HOOK, result: 'timeout' }], ['roomcast_hook_requests_total', { ...HOOK, result: 'ok' }], '15m', { labels: { ...FLEET, ...HOOK } }),
  RoomcastHookOpen: {
    fires: { [of('roomcast_hook_breaker_open', HOOK)]: still(1) },
    quiet: { [of('roomcast_hook_breaker_open', HOOK)]: still(0) },
    at: '5m',
    labels: { ...FLEET, ...HOOK },
  },
  RoomcastNoticesDropped: counter('roomcast_hook_notices_total', { ...HOOK, result: 'dropped' }, '15m', { labels: { ...FLEET, ...HOOK } }),
  RoomcastTurnedAway: shareOf(['roomcast_handshakes_refused_total', { reason: 'origin' }], ['roomcast_connections_opened_total'], '20m', { labels: { ...FLEET, reason: 'origin' } }),
  RoomcastSessionsUnknown: shareOf(['roomcast_handshakes_refused_total', { reason: 'unknown_session' }], ['roomcast_connections_opened_total'], '20m', { labels: FLEET }),
  RoomcastNotRecovered: {
    fires: { [of('roomcast_recoveries_total', { result: 'incomplete' })]: grows(60), [of('roomcast_recoveries_total', { result: 'recovered' })]: grows(60) },
    // Clients that return too late to be recovered are not a fault, so the alert does not fire.
    quiet: { [of('roomcast_recoveries_total', { result: 'unknown' })]: grows(60), [of('roomcast_recoveries_total', { result: 'recovered' })]: grows(60) },
    at: '20m',
    labels: FLEET,
  },
  RoomcastRevocationsApart: {
    fires: { [of('roomcast_revocations')]: still(3), [other('roomcast_revocations')]: still(2) },
    quiet: { [of('roomcast_revocations')]: still(3), [other('roomcast_revocations')]: still(3) },
    at: '5m',
    labels: FLEET,
  },
  RoomcastRefreshesFail: shareOf(['roomcast_refreshes_total', { result: 'expired' }], ['roomcast_refreshes_total', { result: 'ok' }], '20m', { labels: FLEET }),
  RoomcastAuditSuppressed: counter('roomcast_audit_suppressed_total', { event: 'connect_refused' }, '15m', { labels: { ...FLEET, event: 'connect_refused' } }),
  RoomcastRateLimited: shareOf(['roomcast_rate_limited_total', { scope: 'socket' }], ['roomcast_events_received_total', { result: 'ok' }], '20m', { labels: { ...FLEET, scope: 'socket' } }),
  RoomcastJoinsRefused: counter('roomcast_joins_refused_total', { reason: 'max_rooms' }, '25m', { labels: FLEET }),
  RoomcastIdsNotKept: counter('roomcast_idempotent_errors_total', { op: 'claim' }, '10m', { labels: { ...FLEET, op: 'claim' } }),
  RoomcastMirrorDropped: counter('roomcast_mirror_dropped_total', { reason: 'full' }, '10m', { labels: { ...FLEET, reason: 'full' } }),
  RoomcastNotNeeded: shareOf(['roomcast_cluster_unneeded_total'], ['roomcast_cluster_received_total'], '45m', {
    labels: FLEET,
    fires: { [of('roomcast_cluster_unneeded_total')]: grows(90), [of('roomcast_cluster_received_total')]: grows(60) },
  }),
  RoomcastJoinsUnconfirmed: counter('roomcast_cluster_unconfirmed_joins_total', {}, '10m'),
  RoomcastEmittersNotHeard: {
    fires: { [of('roomcast_socketio_dropped_total', { reason: 'refused' })]: grows(6) },
    // Every node receives emitters' messages, and drops those that have no recipient on the node. These drops are
    // normal.
    quiet: { [of('roomcast_socketio_dropped_total', { reason: 'nobody' })]: grows(6), [of('roomcast_socketio_dropped_total', { reason: 'refused' })]: still(6) },
    at: '20m',
    labels: { ...FLEET, reason: 'refused' },
  },
};
