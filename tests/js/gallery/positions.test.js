// Live positions: a driver reports where a trip is, and those who follow the trip get an event named after it.
import { gallery } from '../harness/transcript.js';

gallery('positions', {
  serve(io) {
    io.on('connection', (socket) => {
      socket.on('follow', (trip, ack) => {
        socket.join(`trip:${trip}`);
        ack({ following: trip });
      });
      socket.on('position', ({ tripId, lat, lng }) => {
        io.to(`trip:${tripId}`).emit(`position/${tripId}`, { lat, lng });
      });
      socket.on('unfollow all', (ack) => {
        [...socket.rooms].filter((room) => room.startsWith('trip:')).forEach((room) => socket.leave(room));
        ack({ following: 'nothing' });
      });
    });
  },
  async play(stage) {
    await stage.connect('driver');
    await stage.connect('ann');
    await stage.connect('ben');
    await stage.ask('ann', 'follow', 't1');
    await stage.ask('ben', 'follow', 't2');
    await stage.send('driver', 'position', { tripId: 't1', lat: 52.520008, lng: 13.404954 });
    await stage.send('driver', 'position', { tripId: 't2', lat: 48.1, lng: 11.5 });
    await stage.ask('ann', 'unfollow all');
    await stage.send('driver', 'position', { tripId: 't1', lat: 52.6, lng: 13.5 });
  },
});
