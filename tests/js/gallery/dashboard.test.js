// A monitoring dashboard: a page watches some hosts, and the collector sends samples to those who watch.
import { gallery } from '../harness/transcript.js';

gallery('dashboard', {
  serve(io) {
    io.on('connection', (socket) => {
      socket.emit('hello', { id: socket.id });
      socket.on('watch', (host, ack) => {
        socket.join(`host:${host}`);
        ack({ watching: host });
      });
      socket.on('unwatch', (host, ack) => {
        socket.leave(`host:${host}`);
        ack({ watching: 'nothing' });
      });
    });
  },
  publish(io, event, data, { host }) {
    if (event === 'alert') io.emit('alert', data);
    else io.to(`host:${host}`).emit('sample', data);
  },
  async play(stage) {
    await stage.connect('ann');
    await stage.connect('ben');
    await stage.ask('ann', 'watch', 'db1');
    await stage.ask('ben', 'watch', 'db2');
    await stage.publish('sample', { cpu: 0.25, memory: 17179869184 }, { host: 'db1' });
    await stage.publish('sample', { cpu: 0.75 }, { host: 'db2' });
    await stage.ask('ann', 'unwatch', 'db1');
    await stage.publish('sample', { cpu: 0.5 }, { host: 'db1' });
    await stage.publish('alert', { text: 'the disk of db1 is full' }, { host: 'db1' });
  },
});
