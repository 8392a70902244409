// The official servers of Engine.IO and Socket.IO, which echo as examples/protocol_server.rs does. Arguments and output
// are the same as of that program.
import http from 'node:http';
import { Server as EngineServer } from 'engine.io';
import { Server } from 'socket.io';

const [pingInterval, pingTimeout, connectTimeout] = process.argv.slice(2).map(Number);
const options = { pingInterval, pingTimeout, connectTimeout };

const engine = new EngineServer(options);
engine.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));

const io = new Server(options);
for (const namespace of ['/', '/custom']) {
  io.of(namespace).on('connection', (socket) => {
    socket.emit('auth', socket.handshake.auth);
    socket.on('message', (...args) => socket.emit('message-back', ...args));
    socket.on('message-with-ack', (...args) => args.pop()(...args));
  });
}

async function listen(attached) {
  const server = http.createServer();
  attached.attach(server);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${server.address().port}`;
}

console.log(JSON.stringify({ engine: await listen(engine), socket: await listen(io) }));
