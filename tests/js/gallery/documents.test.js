// Shared documents: binary updates go to all others who have the document open, and a late reader gets all updates.
import { gallery } from '../harness/transcript.js';

gallery('documents', {
  serve(io) {
    const updates = new Map();
    io.on('connection', (socket) => {
      socket.on('open', (document, ack) => {
        socket.join(`document:${document}`);
        for (const update of updates.get(document) ?? []) socket.emit('update', document, update);
        ack({ success: true, room: `document:${document}` });
      });
      socket.on('update', (document, update) => {
        updates.set(document, [...(updates.get(document) ?? []), update]);
        socket.to(`document:${document}`).emit('update', document, update);
      });
      socket.on('awareness', (document, state) => socket.to(`document:${document}`).emit('awareness', document, state));
    });
  },
  async play(stage) {
    await stage.connect('ann');
    await stage.connect('ben');
    await stage.ask('ann', 'open', 'd1');
    await stage.ask('ben', 'open', 'd1');
    await stage.send('ann', 'update', 'd1', Buffer.from([1, 2, 3]));
    await stage.send('ben', 'update', 'd1', Buffer.from([4]));
    await stage.send('ben', 'awareness', 'd1', Buffer.from([0xff]));
    await stage.connect('late');
    await stage.ask('late', 'open', 'd1');
  },
});
