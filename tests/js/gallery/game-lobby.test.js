// A game for two: a table has two places, the game starts when both are taken, and moves go to the opponent.
import { gallery } from '../harness/transcript.js';

gallery('game-lobby', {
  serve(io) {
    io.on('connection', (socket) => {
      const tables = () => [...socket.rooms].filter((room) => room.startsWith('table:'));
      socket.on('sit', (table, name, ack) => {
        const room = `table:${table}`;
        if ((io.of('/').adapter.rooms.get(room)?.size ?? 0) >= 2) return ack({ ok: false, reason: 'full' });
        socket.data.name = name;
        socket.join(room);
        const count = io.of('/').adapter.rooms.get(room).size;
        io.to(room).emit('seated', { name, count });
        ack({ ok: true });
      });
      socket.on('move', (table, move) => {
        if (socket.rooms.has(`table:${table}`)) socket.to(`table:${table}`).emit('move', { by: socket.data.name, move });
      });
      const stand = () => tables().forEach((room) => {
        socket.leave(room);
        io.to(room).emit('stood', { name: socket.data.name, count: io.of('/').adapter.rooms.get(room)?.size ?? 0 });
      });
      socket.on('stand', (ack) => {
        stand();
        ack({ ok: true });
      });
      socket.on('disconnecting', stand);
    });
  },
  async play(stage) {
    for (const who of ['ann', 'ben', 'cat']) await stage.connect(who);
    await stage.ask('ann', 'sit', 7, 'Ann');
    await stage.ask('ben', 'sit', 7, 'Ben');
    await stage.ask('cat', 'sit', 7, 'Cat');
    await stage.send('ann', 'move', 7, 'e2e4');
    await stage.send('cat', 'move', 7, 'not at the table');
    await stage.ask('ben', 'stand');
    await stage.ask('cat', 'sit', 7, 'Cat');
    await stage.leave('ann', { expect: ['cat'] });
  },
});
