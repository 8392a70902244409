// Runs as many official clients as the parent process says, each from a loopback address of its own, and reports each
// second.
import http from 'node:http';
import { io } from 'socket.io-client';

const { url, from, count, rate } = JSON.parse(process.argv[2]);
const PAUSE = 100;

/** Of ten clients one polls, one opens with a WebSocket, and the others begin by polling and upgrade, which is the default. */
const transports = (at) => [['polling'], ['websocket']][at % 10] ?? ['polling', 'websocket'];

const fresh = () => ({ connects: [], absences: [], reasons: {}, recovered: 0, anew: 0, missed: 0, repeated: 0 });
let phase = fresh();

function open(at) {
  const agent = new http.Agent({ localAddress: `127.${1 + (at >> 14)}.${(at >> 7) & 127}.${1 + (at & 127)}`, keepAlive: true });
  // All other settings are the client's defaults: it reconnects after 1 s, doubles the pause each time up to 5 s, and
  // half of it is random.
  const socket = io(url, { transports: transports(at), forceNew: true, withCredentials: true, agent });
  let [left, here, last] = [undefined, false, undefined];
  socket.on('connect', () => {
    here = true;
    phase.connects.push(Date.now());
    if (left === undefined) return;
    phase.absences.push(Date.now() - left);
    if (socket.recovered) phase.recovered += 1;
    else phase.anew += 1;
    // A new session may begin at any offset.
    if (!socket.recovered) last = undefined;
  });
  socket.on('tick', ({ n }) => {
    if (n <= last) phase.repeated += 1;
    if (n > last + 1) phase.missed += n - last - 1;
    last = n;
  });
  socket.on('disconnect', (reason) => {
    // Also reports a connection that ended before it was established.
    if (!here) return;
    here = false;
    left = Date.now();
    phase.reasons[reason] = (phase.reasons[reason] ?? 0) + 1;
  });
  return socket;
}

const sockets = [];
for (let at = 0; at < count; at += 1) {
  sockets.push(open(from + at));
  if (at % Math.max(1, Math.round((rate * PAUSE) / 1000)) === 0) await new Promise((resolve) => setTimeout(resolve, PAUSE));
}

process.on('message', (what) => {
  if (what === 'count') {
    const count = (is) => sockets.filter(is).length;
    process.send({ connected: count((socket) => socket.connected), inactive: count((socket) => !socket.active) });
  }
  if (what === 'phase') {
    process.send(phase);
    phase = fresh();
  }
  if (what === 'end') process.exit(0);
});
process.on('disconnect', () => process.exit(0));
