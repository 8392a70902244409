// A log tail: a client that opens a log gets its newest three lines, and then each new line.
import { gallery } from '../harness/transcript.js';

const kept = new Map();

gallery('log-tail', {
  serve(io) {
    io.on('connection', (socket) => {
      socket.on('tail', (log, ack) => {
        socket.join(`log:${log}`);
        for (const line of kept.get(log) ?? []) socket.emit('line', line);
        ack({ success: true, room: `log:${log}` });
      });
    });
  },
  publish(io, event, data, { log }) {
    kept.set(log, [...(kept.get(log) ?? []), data].slice(-3));
    io.to(`log:${log}`).emit(event, data);
  },
  async play(stage) {
    await stage.connect('ann');
    for (let n = 1; n <= 4; n += 1) await stage.publish('line', { n, text: `line ${n}` }, { log: 'app' });
    await stage.ask('ann', 'tail', 'app');
    await stage.publish('line', { n: 5, text: 'line 5' }, { log: 'app' });
    await stage.publish('line', { n: 1, text: 'another log' }, { log: 'db' });
    await stage.connect('ben');
    await stage.ask('ben', 'tail', 'app');
  },
});
