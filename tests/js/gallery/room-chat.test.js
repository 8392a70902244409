// A chat with one room for everybody: people say their name, see who comes and goes, and how many are there.
import { gallery } from '../harness/transcript.js';

gallery('room-chat', {
  serve(io) {
    let users = 0;
    io.on('connection', (socket) => {
      socket.on('add user', (username) => {
        if (socket.data.username) return;
        socket.data.username = username;
        users += 1;
        socket.join('chat');
        socket.emit('login', { numUsers: users });
        socket.to('chat').emit('user joined', { username, numUsers: users });
      });
      const say = (event, payload) => socket.on(event, (...args) => {
        if (socket.data.username) socket.to('chat').emit(event, payload(socket.data.username, ...args));
      });
      say('new message', (username, message) => ({ username, message }));
      say('typing', (username) => ({ username }));
      say('stop typing', (username) => ({ username }));
      socket.on('disconnect', () => {
        if (!socket.data.username) return;
        users -= 1;
        socket.to('chat').emit('user left', { username: socket.data.username, numUsers: users });
      });
    });
  },
  async play(stage) {
    for (const who of ['ann', 'ben', 'cat']) await stage.connect(who);
    for (const who of ['ann', 'ben', 'cat']) await stage.send(who, 'add user', who.toUpperCase());
    await stage.connect('lurker');
    await stage.send('ann', 'typing');
    await stage.send('ann', 'new message', 'hello, {everybody}');
    await stage.send('ann', 'stop typing');
    await stage.send('lurker', 'new message', 'not logged in');
    await stage.leave('ben', { expect: ['ann', 'cat'] });
  },
});
