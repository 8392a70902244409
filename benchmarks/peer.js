// The same server as contracts/*.toml describe, with Node's socket.io: with its memory adapter, or on Redis with the
// classic or the sharded adapter (REDIS_URL, ADAPTER).
import { createServer } from 'node:http';
import jwt from 'jsonwebtoken';
import { createClient } from 'redis';
import { createAdapter, createShardedAdapter } from '@socket.io/redis-adapter';
import { Server } from 'socket.io';

const { REDIS_URL, ADAPTER, SECRET } = process.env;

async function adapter() {
  if (!REDIS_URL) return undefined;
  const pub = createClient({ url: REDIS_URL });
  const sub = pub.duplicate();
  await Promise.all([pub.connect(), sub.connect()]);
  return ADAPTER === 'sharded' ? createShardedAdapter(pub, sub) : createAdapter(pub, sub);
}

const http = createServer();
const io = new Server(http, { pingInterval: 25_000, pingTimeout: 20_000, serveClient: false, adapter: await adapter() });

function serve(namespace) {
  namespace.on('connection', (socket) => {
    socket.on('join', async (room, ack) => {
      await socket.join(`room:${room}`);
      ack?.({ success: true, room });
    });
    socket.on('say', (room, ...rest) => namespace.to(`room:${room}`).emit('said', room, ...rest));
    socket.on('echo', (...args) => args.pop()(...args));
  });
}

serve(io);
const secure = io.of('/secure');
secure.use((socket, next) => {
  try {
    socket.data.user = jwt.verify(socket.handshake.auth.token, SECRET, { algorithms: ['HS256'] });
    next();
  } catch {
    next(new Error('AUTHENTICATION_FAILED'));
  }
});
serve(secure);
http.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ ready: true, server: `127.0.0.1:${http.address().port}` })));
