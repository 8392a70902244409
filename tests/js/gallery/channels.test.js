// A broadcaster with public, private and presence channels: a backend sends to channels, members whisper to each other.
import { gallery } from '../harness/transcript.js';

const user = (socket) => {
  const { token } = socket.handshake.auth;
  return token && JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
};

gallery('channels', {
  serve(io) {
    io.on('connection', (socket) => {
      const may = (channel) => !/^(private|presence)-/.test(channel) || user(socket)?.channels?.includes(channel);
      socket.on('subscribe', (channel) => {
        if (!may(channel)) return socket.emit('subscription_error', channel, 403);
        const room = io.of('/').adapter.rooms.get(channel) ?? new Set();
        const members = [...room].map((id) => ({ id: user(io.of('/').sockets.get(id)).sub }));
        socket.join(channel);
        if (channel.startsWith('presence-')) {
          const self = { id: user(socket).sub };
          socket.emit('presence:subscribed', channel, [...members, self]);
          socket.to(channel).emit('presence:joining', channel, self);
        }
      });
      socket.on('unsubscribe', (channel) => {
        socket.leave(channel);
        if (channel.startsWith('presence-')) io.to(channel).emit('presence:leaving', channel, { id: user(socket).sub });
      });
      socket.on('client event', ({ channel, event, data }) => {
        if (!/^client-[a-z]+$/.test(event) || !socket.rooms.has(channel)) return;
        socket.to(channel).emit(event, channel, data);
      });
    });
  },
  publish(io, event, data, { channel }) {
    io.to(channel).emit(event, data);
  },
  async play(stage) {
    const claims = { channels: ['private-orders', 'presence-room'] };
    await stage.connect('ann', { user: 'ann', claims });
    await stage.connect('ben', { user: 'ben', claims });
    await stage.connect('eve', { user: 'eve' });
    await stage.send('ann', 'subscribe', 'news');
    await stage.send('ann', 'subscribe', 'private-orders');
    await stage.send('eve', 'subscribe', 'private-orders');
    await stage.send('ann', 'subscribe', 'presence-room');
    await stage.send('ben', 'subscribe', 'presence-room');
    await stage.send('ben', 'client event', { channel: 'presence-room', event: 'client-typing', data: { on: true } });
    await stage.send('eve', 'client event', { channel: 'presence-room', event: 'client-typing', data: { on: true } });
    await stage.send('ben', 'client event', { channel: 'presence-room', event: 'disconnect', data: {} });
    await stage.publish('OrderShipped', { id: 7 }, { channel: 'private-orders' });
    await stage.publish('Headline', { text: 'news' }, { channel: 'news' });
    await stage.send('ben', 'unsubscribe', 'presence-room');
  },
});
