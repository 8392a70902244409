// The same as bench.toml, by Node's socket.io with its memory adapter.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
const io = new Server(http, { pingInterval: 25_000, pingTimeout: 20_000, serveClient: false });
io.on('connection', (socket) => {
  socket.on('join', async (room, ack) => {
    await socket.join(`room:${room}`);
    ack?.({ success: true, room });
  });
  socket.on('say', (room, ...rest) => io.to(`room:${room}`).emit('said', room, ...rest));
});
http.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ ready: true, server: `127.0.0.1:${http.address().port}` })));
