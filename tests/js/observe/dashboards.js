// The dashboards of charts/roomcast/files/dashboards. `scripts/observe --write` writes them.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../harness/node.js';
import { dashboard, graph, row, stat, table, variable } from './panels.js';

export const FOLDER = join(ROOT, 'charts/roomcast/files/dashboards');

const JOB = 'job=~"$job"';
const NODE = 'job=~"$job", instance=~"$instance"';
const CONTRACT = 'job=~"$job", contract=~"$contract"';
const EVENT = `${CONTRACT}, event=~"$event"`;

const rate = (metric, labels) => `rate(${metric}{${labels}}[$__rate_interval])`;
const perSecond = (by, metric, labels) => `sum by (${by}) (${rate(metric, labels)})`;
const quantile = (q, by, metric, labels) =>
  `histogram_quantile(${q}, sum by (${['le', ...by].join(', ')}) (${rate(`${metric}_bucket`, labels)}))`;
const share = (part, whole) => `(${part}) / (${whole})`;
/** A metric that is 0 where its series does not exist yet. */
const orNone = (expr, labels) => `${expr} or on () (0 * count(roomcast_build_info{${labels}}))`;
const total = (metric, labels) => orNone(`sum(${rate(metric, labels)})`, labels);

const jobs = variable('job', 'Job', 'label_values(roomcast_build_info, job)', 'What Prometheus calls the fleet.');
const toNode = [{ title: 'The node', url: '/d/roomcast-node?var-instance=${__field.labels.instance}&${datasource:queryparam}&${job:queryparam}&${__url_time_range}' }];

const fleet = dashboard({
  uid: 'roomcast-fleet',
  title: 'roomcast: the fleet',
  description: 'Can clients connect, do messages arrive, how late, is Redis well, who is drained.',
  variables: [jobs],
  panels: [
    stat('Nodes', 'Nodes that Prometheus scrapes.', 'none', `count(roomcast_build_info{${JOB}})`),
    stat('Nodes that take clients', 'Nodes that are ready.', 'none', `sum(roomcast_ready{${JOB}})`, [[null, 'red'], [1, 'green']]),
    stat('Clients', 'Clients connected now, over all namespaces.', 'short', `sum(roomcast_connections{${JOB}})`),
    stat('Messages lost', 'Of the canaries between all nodes, the share that did not arrive.', 'percentunit', share(`sum(${rate('roomcast_canaries_lost_total', JOB)})`, `sum(${rate('roomcast_canaries_lost_total', JOB)}) + sum(${rate('roomcast_canaries_received_total', JOB)})`), [[null, 'green'], [0.001, 'orange'], [0.01, 'red']]),
    stat('Delay between nodes, 99 %', 'Seconds that 99 % of the canaries between nodes take at most.', 's', quantile(0.99, [], 'roomcast_canary_delay_seconds', JOB), [[null, 'green'], [0.1, 'orange'], [0.5, 'red']]),
    stat('Nodes that reach Redis', 'Nodes that reach Redis and whose writes it accepts.', 'none', `sum(roomcast_redis_up{${JOB}})`, [[null, 'red'], [1, 'green']]),

    row('Connections'),
    graph('Clients by node', 'Clients connected to each node, over all namespaces.', 'short', [[`sum by (instance) (roomcast_connections{${JOB}})`, '{{instance}}']], { links: toNode }),
    graph('New connections', 'Clients that connect each second, by namespace and the transport that they began with.', 'cps', [[perSecond('nsp, transport', 'roomcast_connections_opened_total', JOB), '{{nsp}} {{transport}}']], { stack: true }),
    graph('Disconnections', 'Clients that leave each second, by reason.', 'cps', [[perSecond('reason', 'roomcast_connections_closed_total', JOB), '{{reason}}']], { stack: true }),
    graph('Connections refused by code', 'Clients refused each second with a CONNECT_ERROR, by its code.', 'cps', [[orNone(perSecond('code', 'roomcast_connections_refused_total', JOB), JOB), '{{code}}']]),
    graph('Requests refused', 'Requests refused each second, because no session may be opened or the session is not here, by reason.', 'reqps', [[perSecond('reason', 'roomcast_handshakes_refused_total', JOB), '{{reason}}']]),
    graph('Incompatible clients', 'Tries each second of clients that speak another protocol or use another parser, by reason.', 'cps', [[perSecond('reason', 'roomcast_incompatible_clients_total', JOB), '{{reason}}']]),
    graph('Tokens', 'Handshakes each second by the result for their token, and one-room capabilities.', 'cps', [[perSecond('result', 'roomcast_authentications_total', JOB), '{{result}}'], [orNone(perSecond('result', 'roomcast_capabilities_total', JOB), JOB), 'capability: {{result}}']]),
    graph('Tokens expired and replaced', 'Sockets that were disconnected each second because their token is no longer valid, and tokens that clients replaced, by result.', 'cps', [[orNone(perSecond('reason', 'roomcast_sessions_ended_total', JOB), JOB), 'ended: {{reason}}'], [orNone(perSecond('result', 'roomcast_refreshes_total', JOB), JOB), 'replaced: {{result}}']]),
    graph('Revocations', 'Revocations that apply now, by node; all should have the same number.', 'short', [[`sum by (instance) (roomcast_revocations{${JOB}})`, '{{instance}}']]),
    graph('Revocations dropped', 'Revocations that nodes dropped each second, by reason.', 'cps', [[perSecond('reason', 'roomcast_revocations_dropped_total', JOB), '{{reason}}']]),

    graph('Key set', 'Keys of the published key set that are in use, by node, and fetches of it each second.', 'short', [[`sum by (instance) (roomcast_jwks_keys{${JOB}})`, '{{instance}}: keys'], [orNone(perSecond('result', 'roomcast_jwks_refreshes_total', JOB), JOB), 'fetched: {{result}}']]),

    row('Requests forwarded between nodes'),
    graph('Requests forwarded', 'Requests each second of clients whose session is on another node, by kind and result. With a sticky proxy there are none.', 'reqps', [[orNone(perSecond('kind, result', 'roomcast_forwarded_total', JOB), JOB), '{{kind}}: {{result}}']]),
    graph('Time to answer forwarded requests', 'Seconds until the other node answered, by what the request is; a poll waits for an event or a ping.', 's', [[quantile(0.99, ['kind'], 'roomcast_forward_seconds', JOB), '{{kind}}, 99 %']]),
    graph('Forwarded requests under way', 'Requests and WebSockets that are on their way to other nodes, by node.', 'short', [[`sum by (instance, what) (roomcast_forward_in_flight{${JOB}})`, '{{instance}}: {{what}}']]),
    graph('Forwarded requests received', 'Requests each second that came to cluster.listen, by result, and bytes of its connections.', 'reqps', [[perSecond('result', 'roomcast_forward_received_total', JOB), '{{result}}'], [perSecond('direction', 'roomcast_forward_bytes_total', JOB), 'bytes {{direction}}']]),

    row('Recovery and history'),
    graph('Sessions recovered', 'Clients each second that asked for recovery, by result.', 'cps', [[orNone(perSecond('result', 'roomcast_recoveries_total', JOB), JOB), '{{result}}']], { stack: true }),
    graph('Missed events replayed', 'Missed events each second that recovered clients received, and events that were replayed to clients that joined a room.', 'eps', [[total('roomcast_recovery_events_total', JOB), 'recovered'], [total('roomcast_history_replayed_total', JOB), 'joined']]),
    graph('Incomplete replays', 'Joins each second whose replay could not be proven complete, by reason.', 'ops', [[perSecond('reason', 'roomcast_history_incomplete_total', JOB), '{{reason}}']]),
    graph('Sessions kept for recovery', 'Sessions of clients that left, in the memory of nodes without Redis.', 'short', [[`sum by (instance) (roomcast_recovery_sessions{${JOB}})`, '{{instance}}']]),
    graph('Sessions not kept for recovery', 'Sessions each second that were forgotten early, or whose rooms could not be kept, by operation.', 'ops', [[`sum(${rate('roomcast_recovery_evicted_total', JOB)})`, 'evicted'], [perSecond('op', 'roomcast_recovery_errors_total', JOB), 'failed: {{op}}']]),
    graph('Events recorded', 'Events appended to histories each second, by namespace, and rooms whose history a node without Redis forgot early.', 'eps', [[orNone(perSecond('nsp', 'roomcast_history_appends_total', JOB), JOB), '{{nsp}}'], [`sum(${rate('roomcast_history_evicted_total', JOB)})`, 'rooms forgotten']]),

    row('Limits'),
    graph('Refused by rate limits', 'Connections and events each second that a rate refuses, by what was counted.', 'cps', [[perSecond('scope', 'roomcast_rate_limited_total', JOB), '{{scope}}']]),
    graph('Joins refused', 'Joins each second that were refused because the socket is in the maximum number of rooms.', 'ops', [[perSecond('reason', 'roomcast_joins_refused_total', JOB), '{{reason}}']]),
    graph('Addresses and users with a limit', 'Addresses and users that limits count now.', 'short', [[`sum by (what) (roomcast_limits_present{${JOB}})`, '{{what}}']]),

    row('Delivery'),
    graph('Events received', 'Events each second, by result: ok, or the code of the error.', 'eps', [[perSecond('result', 'roomcast_events_received_total', JOB), '{{result}}']], { stack: true }),
    graph('Events published', 'Events published each second, by origin.', 'eps', [[perSecond('origin', 'roomcast_events_published_total', JOB), '{{origin}}']], { stack: true }),
    graph('Deliveries', 'Copies of events put into write queues of clients each second, and dropped copies, by reason.', 'eps', [[`sum(${rate('roomcast_deliveries_total', JOB)})`, 'queued'], [perSecond('reason', 'roomcast_deliveries_dropped_total', JOB), 'not queued: {{reason}}']]),
    graph('Loss between nodes', 'Of the canaries from one node to another, the share that did not arrive.', 'percentunit', [[share(perSecond('from, instance', 'roomcast_canaries_lost_total', JOB), `${perSecond('from, instance', 'roomcast_canaries_lost_total', JOB)} + ${perSecond('from, instance', 'roomcast_canaries_received_total', JOB)}`), '{{from}} → {{instance}}']]),
    graph('Events that missed other nodes', 'Events each second that did not reach the other nodes, by reason; and those that a node knows it missed, or dropped.', 'eps', [[perSecond('reason', 'roomcast_cluster_not_carried_total', JOB), 'not carried: {{reason}}'], [`sum(${rate('roomcast_cluster_missed_total', JOB)})`, 'missed'], [perSecond('reason', 'roomcast_cluster_dropped_total', JOB), 'dropped: {{reason}}']]),
    graph('Use of events from other nodes', 'Events of other nodes each second that were for a client of the receiving node, and that were not; and joins that were answered before the room was subscribed.', 'eps', [[`sum(${rate('roomcast_cluster_received_total', JOB)})`, 'needed'], [total('roomcast_cluster_unneeded_total', JOB), 'not needed'], [`sum(${rate('roomcast_cluster_unconfirmed_joins_total', JOB)})`, 'joins not confirmed']]),
    graph('Messages of emitters', 'Messages of Socket.IO emitters and of servers of Node.js each second, summed over the receiving nodes, by kind.', 'eps', [[orNone(perSecond('kind', 'roomcast_socketio_received_total', JOB), JOB), '{{kind}}']]),
    graph('Messages of emitters dropped', 'Messages of emitters and Node.js servers that were dropped, by reason; nobody and left are normal.', 'eps', [[perSecond('reason', 'roomcast_socketio_dropped_total', JOB), '{{reason}}']]),
    graph('API', 'Requests of backends each second, by status.', 'reqps', [[perSecond('status', 'roomcast_api_requests_total', JOB), '{{status}}']], { stack: true }),

    row('Latency'),
    graph('Delay between nodes', 'Seconds that 99 % of the canaries from one node to another take at most; needs clocks that agree.', 's', [[quantile(0.99, ['from', 'instance'], 'roomcast_canary_delay_seconds', JOB), '{{from}} → {{instance}}']]),
    graph('Delivery on other nodes', 'Seconds from a publish on another node to the queues of the clients here.', 's', [[quantile(0.5, [], 'roomcast_cluster_delay_seconds', JOB), '50 %'], [quantile(0.99, [], 'roomcast_cluster_delay_seconds', JOB), '99 %']]),
    graph('Time to handle and acknowledge', 'Seconds from the arrival of a client event until it is handled, and until it is acknowledged.', 's', [[quantile(0.99, [], 'roomcast_event_seconds', JOB), 'handled, 99 %'], [quantile(0.99, [], 'roomcast_ack_seconds', JOB), 'acknowledged, 99 %']]),
    graph('Time slices of writes', 'Seconds that a task held its thread while it wrote to clients or delivered to a large room; it yields after half a millisecond.', 's', [[quantile(0.5, [], 'roomcast_delivery_turn_seconds', JOB), '50 %'], [quantile(0.99, [], 'roomcast_delivery_turn_seconds', JOB), '99 %']]),
    graph('Time to publish', 'Seconds to put an event into the write queues of all its clients on the node, by origin.', 's', [[quantile(0.99, ['origin'], 'roomcast_publish_seconds', JOB), '{{origin}}, 99 %']]),
    graph('API', 'Seconds from a request to its answer, by route.', 's', [[quantile(0.99, ['route'], 'roomcast_api_request_seconds', JOB), '{{route}}, 99 %']]),
    graph('Hooks', 'Seconds from a call of a backend to its answer, waiting and retries included.', 's', [[quantile(0.99, ['hook'], 'roomcast_hook_seconds', JOB), '{{hook}}, 99 %']]),

    row('Redis'),
    graph('Redis reachable', '1 while a node reaches Redis, gets its own messages back, and its writes are accepted.', 'none', [[`roomcast_redis_up{${JOB}}`, '{{instance}}']], { links: toNode }),
    graph('Causes of Redis failures', 'Nodes for which Redis does not work, by cause.', 'none', [[`sum by (cause) (roomcast_redis_failure{${JOB}})`, '{{cause}}']], { stack: true }),
    graph('Commands refused by Redis', 'Commands that Redis refuses each second, by cause.', 'ops', [[perSecond('cause', 'roomcast_redis_refused_total', JOB), '{{cause}}']]),
    graph('Round trip through Redis', 'Seconds until a message of a node to itself comes back through pub/sub, and until its publish is answered.', 's', [[quantile(0.99, ['instance'], 'roomcast_redis_round_trip_seconds', JOB), '{{instance}}: back, 99 %'], [quantile(0.99, ['instance'], 'roomcast_redis_command_seconds', JOB), '{{instance}}: answered, 99 %']]),
    graph('Queues towards and from Redis', 'Messages that wait to be written to Redis, and of other nodes to be handled.', 'short', [[`roomcast_cluster_publish_queue{${JOB}}`, '{{instance}}: out'], [`roomcast_cluster_receive_queue{${JOB}}`, '{{instance}}: in']]),
    graph('Reconnections', 'Reconnections to Redis each second.', 'cps', [[perSecond('instance', 'roomcast_redis_reconnects_total', JOB), '{{instance}}']]),
    graph('Owner lookups', 'Questions each second for the owner of a room, by answer.', 'ops', [[perSecond('result', 'roomcast_owner_lookups_total', JOB), '{{result}}']]),
    graph('Writes to Redis that failed', 'What could not be written each second: ids of publishes, mirrored keys, and presence one by one, by reason. Presence is made good.', 'ops', [[perSecond('op', 'roomcast_idempotent_errors_total', JOB), 'ids: {{op}}'], [perSecond('reason', 'roomcast_mirror_dropped_total', JOB), 'mirrored keys: {{reason}}'], [perSecond('reason', 'roomcast_presence_queue_dropped_total', JOB), 'presence: {{reason}}']]),
    graph('History failures', 'Uses of histories that failed each second; the events went on live.', 'ops', [[orNone(perSecond('op, reason', 'roomcast_history_errors_total', JOB), JOB), '{{op}} {{reason}}']]),
    graph('Presence writes', 'Presence written to Redis each second, and times that a node wrote all of it again.', 'ops', [[`sum(${rate('roomcast_presence_writes_total', JOB)})`, 'written'], [perSecond('reason', 'roomcast_presence_resyncs_total', JOB), 'anew: {{reason}}']]),

    row('Nodes and drains'),
    graph('Ready nodes', '1 while a node takes new clients.', 'none', [[`roomcast_ready{${JOB}}`, '{{instance}}']], { links: toNode }),
    graph('Conflicts between nodes', 'Nodes that share an id, and nodes with other contracts on the same prefix, as each node sees them.', 'none', [[`roomcast_cluster_conflicts{${JOB}}`, '{{instance}}: {{kind}}']], { links: toNode }),
    graph('Known nodes', 'Nodes that each node knows to live; all should know the same number.', 'none', [[`roomcast_cluster_nodes{${JOB}}`, '{{instance}}']]),
    graph('Handshakes refused while leaving', 'Handshakes each second that a leaving node sent elsewhere.', 'cps', [[perSecond('instance', 'roomcast_handshakes_refused_total', `${JOB}, reason="leaving"`), '{{instance}}']]),
    graph('Drain state', '1 for the state that a node is in, while it is not serving.', 'none', [[`max by (instance, state) (roomcast_drain_state{${JOB}, state!="serving"})`, '{{instance}}: {{state}}']]),
    graph('Clients still to drain', 'Clients that are still connected to a node that leaves.', 'short', [[`sum by (instance) (roomcast_drain_sockets_left{${JOB}})`, '{{instance}}']]),
    graph('Sockets closed by drains', 'Sockets that a leaving node closes each second, as its waves are paced and as they were closed.', 'cps', [[perSecond('instance', 'roomcast_drain_closed_total', JOB), '{{instance}}: closed'], [`sum by (instance) (roomcast_drain_pace{${JOB}})`, '{{instance}}: pace'], [perSecond('instance', 'roomcast_drain_waves_total', JOB), '{{instance}}: waves']]),
    graph('Capacity offered', 'Connections each second that a node says it can take, and that a leaving one was offered.', 'cps', [[`sum by (instance) (roomcast_drain_accepts{${JOB}})`, '{{instance}}: accepts'], [`sum by (instance) (roomcast_drain_offered{${JOB}})`, '{{instance}}: is offered']]),
    table('Nodes', 'Version, engine and id of every node.', `roomcast_build_info{${JOB}}`, ['Value']),

    row('Backends and logs'),
    graph('Hooks', 'Calls of backends each second, by result.', 'reqps', [[perSecond('hook, result', 'roomcast_hook_requests_total', JOB), '{{hook}}: {{result}}']]),
    graph('Events refused, too many wait', 'Events of clients each second that were refused because too many, or too many bytes, waited to be handled, by reason.', 'eps', [[perSecond('reason', 'roomcast_events_not_queued_total', JOB), '{{reason}}']]),
    graph('Open circuit breakers', '1 while the circuit breaker of a hook is open, so that its backend is not called.', 'none', [[`max by (hook) (roomcast_hook_breaker_open{${JOB}})`, '{{hook}}']]),
    graph('Notices to backends', 'Notices to backends each second, by result; and waiting notices.', 'short', [[perSecond('hook, result', 'roomcast_hook_notices_total', JOB), '{{hook}}: {{result}}'], [`sum by (hook) (roomcast_hook_notices_waiting{${JOB}})`, '{{hook}}: waiting']]),
    graph('Retries of hooks', 'Attempts each second that repeated a failed one.', 'reqps', [[orNone(perSecond('hook', 'roomcast_hook_retries_total', JOB), JOB), '{{hook}}']]),
    graph('Cached join answers', 'Questions to join hooks each second, by where the answer came from.', 'reqps', [[orNone(perSecond('hook, result', 'roomcast_hook_cache_total', JOB), JOB), '{{hook}}: {{result}}']]),
    graph('Audit records suppressed', 'Records each second that were not written, because there were too many of their kind.', 'ops', [[perSecond('event', 'roomcast_audit_suppressed_total', JOB), '{{event}}']]),
    graph('Log records lost', 'Log records each second that were lost, because their reader stalled or writing failed.', 'ops', [[perSecond('instance', 'roomcast_log_lost_total', JOB), '{{instance}}']]),
  ],
});

const node = dashboard({
  uid: 'roomcast-node',
  title: 'roomcast: a node',
  description: 'One node: its clients, its queues, its processor and memory.',
  variables: [jobs, variable('instance', 'Node', 'label_values(roomcast_build_info{job=~"$job"}, instance)', 'A node, as Prometheus names it.')],
  panels: [
    stat('Takes new clients', '1 while it does; /ready says why not.', 'none', `min(roomcast_ready{${NODE}})`, [[null, 'red'], [1, 'green']]),
    stat('Clients', 'Over all namespaces.', 'short', `sum(roomcast_connections{${NODE}})`),
    stat('Uptime', 'Since the process started.', 's', `min(time() - process_start_time_seconds{${NODE}})`),
    stat('Busy', 'The share of time that the workers are busy.', 'percentunit', `max(${rate('roomcast_runtime_busy_seconds_total', NODE)} / roomcast_runtime_workers{${NODE}})`, [[null, 'green'], [0.7, 'orange'], [0.85, 'red']]),
    stat('Memory', 'Resident.', 'bytes', `sum(process_resident_memory_bytes{${NODE}})`),
    stat('Open files', 'File descriptors that are open, of those that may be.', 'percentunit', `max(process_open_fds{${NODE}} / process_max_fds{${NODE}})`, [[null, 'green'], [0.6, 'orange'], [0.8, 'red']]),

    row('Clients'),
    graph('Clients', 'By namespace.', 'short', [[`sum by (nsp) (roomcast_connections{${NODE}})`, '{{nsp}}']], { stack: true }),
    graph('Versions of the protocol', 'Connections by the version of Engine.IO that the client speaks: 3 is that of Socket.IO 2.', 'short', [[`sum by (protocol) (roomcast_protocols{${NODE}})`, 'EIO={{protocol}}']]),
    graph('Transports', 'Connections by the transport that they are on now, WebSockets that agreed on compression, and clients that upgrade each second.', 'short', [[`sum by (transport) (roomcast_transports{${NODE}})`, '{{transport}}'], [`sum(roomcast_websockets_compressed{${NODE}})`, 'compressed'], [`sum(${rate('roomcast_transport_upgrades_total', NODE)})`, 'upgrades a second']]),
    graph('Rooms', 'Namespaces, rooms with members, memberships in them, and users with a client.', 'short', [[`sum(roomcast_namespaces{${NODE}})`, 'namespaces'], [`sum(roomcast_rooms{${NODE}})`, 'rooms'], [`sum(roomcast_memberships{${NODE}})`, 'memberships'], [`sum(roomcast_users{${NODE}})`, 'users']]),
    graph('Connections opened, closed and refused', 'Clients that connect, leave and are refused each second.', 'cps', [[`sum(${rate('roomcast_connections_opened_total', NODE)})`, 'connect'], [perSecond('reason', 'roomcast_connections_closed_total', NODE), 'leave: {{reason}}'], [perSecond('code', 'roomcast_connections_refused_total', NODE), 'refused: {{code}}']]),
    graph('Bytes', 'Bytes of clients\' connections each second.', 'Bps', [[perSecond('direction', 'roomcast_network_bytes_total', NODE), '{{direction}}']]),
    graph('Limits', 'Buckets of rates, addresses and users that are counted, and what was refused each second.', 'short', [[`sum by (what) (roomcast_limits_present{${NODE}})`, 'counted: {{what}}'], [`sum by (kind) (roomcast_rate_buckets{${NODE}})`, '{{kind}} buckets'], [perSecond('scope', 'roomcast_rate_limited_total', NODE), 'refused a second: {{scope}}']]),

    row('Queues'),
    graph('Packets for clients', 'Packets that wait to be written, over all clients and in the longest queue (WebSockets of the native engine).', 'short', [[`sum(roomcast_queue_packets{${NODE}})`, 'all'], [`max(roomcast_queue_longest_packets{${NODE}})`, 'longest']]),
    graph('Bytes for clients', 'Bytes that wait to be written, over all clients and for the one that has the most waiting.', 'bytes', [[`sum(roomcast_queue_bytes{${NODE}})`, 'all'], [`max(roomcast_queue_longest_bytes{${NODE}})`, 'longest']]),
    graph('Bytes of waiting events', 'Bytes of events of clients that wait to be handled, for instance behind a hook.', 'bytes', [[`sum(roomcast_events_pending_bytes{${NODE}})`, 'waiting']]),
    graph('Events waiting for a large room', 'Events that wait to be queued for their clients because one for a large room is under way, by namespace.', 'short', [[`sum by (nsp) (roomcast_publish_waiting{${NODE}})`, '{{nsp}}']]),
    graph('Deliveries dropped', 'Copies of events each second that did not get into a client\'s queue, by namespace and reason.', 'eps', [[perSecond('nsp, reason', 'roomcast_deliveries_dropped_total', NODE), '{{nsp}} {{reason}}']]),
    graph('Messages waiting for Redis', 'Messages that wait to be written to Redis, and of other nodes to be handled.', 'short', [[`sum(roomcast_cluster_publish_queue{${NODE}})`, 'out'], [`sum(roomcast_cluster_receive_queue{${NODE}})`, 'in']]),
    graph('Time to hand a message to Redis', 'Seconds in the queue towards Redis and until its answer.', 's', [[quantile(0.5, [], 'roomcast_cluster_publish_seconds', NODE), '50 %'], [quantile(0.99, [], 'roomcast_cluster_publish_seconds', NODE), '99 %']]),
    graph('Waiting hook calls', 'Calls of backends that wait for a free slot, by hook.', 'short', [[`sum by (hook) (roomcast_hook_queue{${NODE}})`, '{{hook}}']]),

    row('Other nodes'),
    graph('Events', 'Events each second that Redis took of this node, and that came from others.', 'eps', [[`sum(${rate('roomcast_cluster_carried_total', NODE)})`, 'carried'], [`sum(${rate('roomcast_cluster_received_total', NODE)})`, 'received']]),
    graph('Canaries', 'Canaries each second that were sent, arrived from each node, and did not.', 'eps', [[`sum(${rate('roomcast_canaries_sent_total', NODE)})`, 'sent'], [perSecond('from', 'roomcast_canaries_received_total', NODE), 'from {{from}}'], [perSecond('from', 'roomcast_canaries_lost_total', NODE), 'lost from {{from}}'], [perSecond('reason', 'roomcast_canaries_not_carried_total', NODE), 'not carried: {{reason}}']]),
    graph('Probe messages', 'Messages that the node sent itself through Redis each second, by result.', 'eps', [[perSecond('result', 'roomcast_redis_probes_total', NODE), '{{result}}']]),

    row('Process'),
    graph('Processor', 'CPU time and busy time of the workers, in processors.', 'none', [[`sum(${rate('process_cpu_seconds_total', NODE)})`, 'CPU'], [`sum(${rate('roomcast_runtime_busy_seconds_total', NODE)})`, 'busy'], [`sum(roomcast_runtime_workers{${NODE}})`, 'workers']]),
    graph('Tasks', 'Tasks that live, and those that are ready and wait in the shared queue.', 'short', [[`sum(roomcast_runtime_tasks{${NODE}})`, 'tasks'], [`sum(roomcast_runtime_queue{${NODE}})`, 'ready']]),
    graph('Memory', 'Resident memory, and the histories in it.', 'bytes', [[`sum(process_resident_memory_bytes{${NODE}})`, 'resident'], [`sum(roomcast_history_bytes{${NODE}})`, 'histories']]),
    graph('Histories in memory', 'Rooms whose history is in the memory of the node, and sessions that may come back.', 'short', [[`sum(roomcast_history_rooms{${NODE}})`, 'rooms'], [`sum(roomcast_recovery_sessions{${NODE}})`, 'sessions']]),
    graph('Clients asked', 'Clients that backends asked each second, by namespace and result.', 'ops', [[perSecond('nsp, result', 'roomcast_clients_asked_total', NODE), '{{nsp}} {{result}}']]),
    graph('API', 'Requests each second, by route and status.', 'reqps', [[perSecond('route, status', 'roomcast_api_requests_total', NODE), '{{route}} {{status}}']]),
    graph('API connections refused', 'Connections to the API listener that were closed before a request, each second, by reason.', 'cps', [[perSecond('reason', 'roomcast_api_connections_refused_total', NODE), '{{reason}}']]),
    graph('Files and threads', 'Open file descriptors, their limit, and threads.', 'short', [[`sum(process_open_fds{${NODE}})`, 'open'], [`sum(process_max_fds{${NODE}})`, 'limit'], [`sum(process_threads{${NODE}})`, 'threads']]),
  ],
});

const contract = dashboard({
  uid: 'roomcast-contract',
  title: 'roomcast: a contract',
  description: 'The events of one application: what clients send, what is published, and how long it takes.',
  variables: [
    jobs,
    variable('contract', 'Contract', 'label_values(roomcast_events_received_total{job=~"$job"}, contract)', 'A contract, by its name.'),
    variable('event', 'Event', 'label_values({__name__=~"roomcast_events_(received|published)_total", job=~"$job", contract=~"$contract"}, event)', 'Its events.'),
  ],
  panels: [
    stat('Received', 'Events of clients each second.', 'eps', `sum(${rate('roomcast_events_received_total', EVENT)})`),
    stat('Events without an error', 'The share of them that ended well.', 'percentunit', share(`sum(${rate('roomcast_events_received_total', `${EVENT}, result="ok"`)})`, `sum(${rate('roomcast_events_received_total', EVENT)})`), [[null, 'red'], [0.9, 'orange'], [0.99, 'green']]),
    stat('Published', 'Events published each second.', 'eps', `sum(${rate('roomcast_events_published_total', EVENT)})`),
    stat('Time to handle, 99 %', 'Seconds from arrival to the last effect, for 99 %.', 's', quantile(0.99, [], 'roomcast_event_seconds', EVENT), [[null, 'green'], [0.25, 'orange'], [1, 'red']]),

    row('What clients send'),
    graph('Events', 'Each second, by event.', 'eps', [[perSecond('event', 'roomcast_events_received_total', EVENT), '{{event}}']], { stack: true }),
    graph('Errors', 'Events each second that did not end well, by event and code.', 'eps', [[perSecond('event, result', 'roomcast_events_received_total', `${EVENT}, result!="ok"`), '{{event}}: {{result}}']]),
    graph('Handling', 'Seconds from an event\'s arrival to its last effect, for 99 %.', 's', [[quantile(0.99, ['event'], 'roomcast_event_seconds', EVENT), '{{event}}']]),
    graph('Acks', 'Acknowledgements each second, by event and result.', 'eps', [[perSecond('event, result', 'roomcast_acks_total', EVENT), '{{event}}: {{result}}']]),
    graph('Time to acknowledge', 'Seconds from an event\'s arrival to its ack, over the contract.', 's', [[quantile(0.5, ['contract'], 'roomcast_ack_seconds', CONTRACT), '{{contract}}, 50 %'], [quantile(0.99, ['contract'], 'roomcast_ack_seconds', CONTRACT), '{{contract}}, 99 %']]),

    row('What is published'),
    graph('Events', 'Published each second, by event and origin.', 'eps', [[perSecond('event, origin', 'roomcast_events_published_total', EVENT), '{{event}} ({{origin}})']]),
    graph('Conflated', 'Events each second that a throttle let pass or held, by event.', 'eps', [[perSecond('event, result', 'roomcast_throttled_total', 'job=~"$job", event=~"$event"'), '{{event}}: {{result}}']]),
    graph('Repeated publishes', 'Publishes each second whose id was used before: nothing was sent again.', 'eps', [[perSecond('contract', 'roomcast_idempotent_duplicates_total', CONTRACT), '{{contract}}']]),
  ],
});

/** All dashboards, by file name. */
export const dashboards = { 'fleet.json': fleet, 'node.json': node, 'contract.json': contract };

/** The contents of a file. */
export const written = (name) => `${JSON.stringify(dashboards[name], null, 2)}\n`;

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv.includes('--write')) {
  mkdirSync(FOLDER, { recursive: true });
  for (const name of Object.keys(dashboards)) writeFileSync(join(FOLDER, name), written(name));
}
