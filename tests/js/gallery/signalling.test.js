// WebRTC signalling: peers in a call learn each other's ids, and send offers, answers and candidates to one peer.
import { gallery } from '../harness/transcript.js';

gallery('signalling', {
  serve(io) {
    io.on('connection', (socket) => {
      socket.on('join', async (call, name, ack) => {
        const others = await io.in(`call:${call}`).fetchSockets();
        socket.data = { call, name };
        socket.join(`call:${call}`);
        socket.to(`call:${call}`).emit('peer-joined', socket.id, name);
        ack({ peers: others.map(({ id, data }) => ({ id, name: data.name })) });
      });
      for (const event of ['offer', 'answer', 'candidate']) {
        socket.on(event, (to, body) => io.to(to).emit(event, socket.id, body));
      }
      socket.on('disconnect', () => {
        if (socket.data.call) socket.to(`call:${socket.data.call}`).emit('peer-left', socket.id);
      });
    });
  },
  async play(stage) {
    const ann = await stage.connect('ann');
    const ben = await stage.connect('ben');
    await stage.ask('ann', 'join', 'c1', 'Ann');
    await stage.ask('ben', 'join', 'c1', 'Ben');
    await stage.send('ben', 'offer', ann, { sdp: 'v=0\r\no=- 1 1 IN IP4 127.0.0.1' });
    await stage.send('ann', 'answer', ben, { sdp: 'v=0' });
    await stage.send('ann', 'candidate', ben, { candidate: 'candidate:1', sdpMLineIndex: 0 });
    await stage.leave('ben', { expect: ['ann'] });
  },
});
