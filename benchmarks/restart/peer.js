// A node of a fleet, written as Socket.IO's documentation shows: the Redis adapter, and io.close() at SIGTERM.
import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import { createClient } from 'redis';
import { Server } from 'socket.io';

const [port, redis] = process.argv.slice(2);
const publisher = createClient({ url: redis });
const subscriber = publisher.duplicate();
await Promise.all([publisher.connect(), subscriber.connect()]);
const web = createServer((request, response) => {
  if (request.url === '/ready') return response.end('{}');
  if (request.url === '/count') return response.end(String(io.engine.clientsCount));
  response.writeHead(404).end();
});
const io = new Server(web, { adapter: createAdapter(publisher, subscriber), serveClient: false });
process.once('SIGTERM', async () => {
  await io.close();
  process.exit(0);
});
web.listen(Number(port), '127.0.0.1', () => console.log('{"ready":true}'));
