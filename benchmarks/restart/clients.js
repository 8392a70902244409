// Official clients, as many as the parent says, each from a loopback address of its own; tells what each second was like.
import http from 'node:http';
import { io } from 'socket.io-client';

const { url, from, count, rate } = JSON.parse(process.argv[2]);
const PAUSE = 100;

/** Of ten clients one polls, one begins by polling, and the others open with a WebSocket. */
const transports = (at) => [['polling'], ['polling', 'websocket']][at % 10] ?? ['websocket'];

let phase = { connects: [], absences: [], reasons: {} };

function open(at) {
  const agent = new http.Agent({ localAddress: `127.${1 + (at >> 14)}.${(at >> 7) & 127}.${1 + (at & 127)}`, keepAlive: true });
  // Everything else is the client's default: back after 1 s, twice as long each time, at most 5 s, half of it random.
  const socket = io(url, { transports: transports(at), forceNew: true, withCredentials: true, agent });
  let [left, here] = [undefined, false];
  socket.on('connect', () => {
    here = true;
    phase.connects.push(Date.now());
    if (left !== undefined) phase.absences.push(Date.now() - left);
  });
  socket.on('disconnect', (reason) => {
    // Told, too, of a connection that ended before it was one.
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
    phase = { connects: [], absences: [], reasons: {} };
  }
  if (what === 'end') process.exit(0);
});
process.on('disconnect', () => process.exit(0));
