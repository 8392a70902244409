// Writes the results of the restart as Markdown.

const most = (restarts, pick) => Math.max(...restarts.map(pick));
const sum = (restarts, pick) => restarts.map(pick).reduce((total, count) => total + count, 0);
const seconds = (time) => (time / 1000).toFixed(1);

export function table({ clients, build, load, cpus, cpu, node, fleets }) {
  const rows = Object.entries(fleets).map(([kind, restarts]) => {
    const cells = [
      kind,
      most(restarts, (one) => one.peak_connections_per_second),
      seconds(most(restarts, (one) => one.absence_ms.median)),
      seconds(most(restarts, (one) => one.absence_ms.p99)),
      seconds(most(restarts, (one) => one.absence_ms.longest)),
      seconds(most(restarts, (one) => one.leave_ms)),
      seconds(most(restarts, (one) => one.everybody_back_ms)),
      sum(restarts, (one) => one.recovered),
      sum(restarts, (one) => one.anew),
      sum(restarts, (one) => one.missed + one.repeated),
      sum(restarts, (one) => one.told_to_stay_away),
      sum(restarts, (one) => one.closed_more_than_once_or_elsewhere),
    ];
    return `| ${cells.join(' | ')} |`;
  });
  return `# A rolling restart under ${clients} clients

Three nodes behind nginx are restarted one after the other (SIGTERM, the same port again), with Redis between them; the
clients are official ones: eight of ten begin by polling and upgrade, which is the default, one opens with a WebSocket, one polls. The
contract of roomcast has a \`[recovery]\`, and a backend publishes a numbered event for everybody every two seconds. The worst
of the three restarts; sums from "recovered" on. ${cpus} processors (${cpu}), Node ${node}: clients, nginx and nodes share them, and a load of
${load.toFixed(0)} from elsewhere when it began. roomcast is ${build}.

| fleet | most new connections within a second | absence, median (s) | absence, 99 % (s) | longest absence (s) | node gone after (s) | everybody back after (s) | recovered | back with a new session | events that recovered clients missed or got twice | told to stay away | closed more than once, or of another node |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
${rows.join('\n')}

roomcast leaves with its default settings but for \`drain.delay\`, which is 0: nginx does not look at \`/ready\`. Node's socket.io has
the Redis adapter and calls \`io.close()\` at SIGTERM. \`restart.json\` has every restart.
`;
}
