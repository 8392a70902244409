// A whiteboard: a stroke goes to all other people on the same board, and a late guest gets the strokes so far.
import { gallery } from '../harness/transcript.js';

gallery('whiteboard', {
  serve(io) {
    const strokes = new Map();
    io.on('connection', (socket) => {
      socket.on('board', (board, ack) => {
        socket.join(`board:${board}`);
        for (const stroke of strokes.get(board) ?? []) socket.emit('drawing', ...stroke);
        ack({ success: true, room: `board:${board}` });
      });
      socket.on('drawing', (board, from, to, color) => {
        if (!socket.rooms.has(`board:${board}`)) return;
        strokes.set(board, [...(strokes.get(board) ?? []), [from, to, color]]);
        socket.to(`board:${board}`).emit('drawing', from, to, color);
      });
      socket.on('pointer', (board, at) => socket.volatile.to(`board:${board}`).emit('pointer', socket.id, at));
    });
  },
  async play(stage) {
    await stage.connect('ann');
    await stage.connect('ben');
    await stage.connect('eve');
    await stage.ask('ann', 'board', 'red');
    await stage.ask('ben', 'board', 'red');
    await stage.ask('eve', 'board', 'blue');
    await stage.send('ann', 'drawing', 'red', [0, 0], [10, 12.5], '#f00');
    await stage.send('ben', 'drawing', 'red', [1, 1], [2, 2], '#0f0');
    await stage.send('eve', 'drawing', 'red', [9, 9], [8, 8], '#00f');
    await stage.send('ann', 'pointer', 'red', [3, 4]);
    await stage.connect('late');
    await stage.ask('late', 'board', 'red');
  },
});
