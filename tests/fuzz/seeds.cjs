// Writes the seeds that Socket.IO's own emitter and adapter make: `node seeds.cjs`, with the packages of tests/js installed.
const fs = require('node:fs');
const path = require('node:path');
const { createRequire } = require('node:module');

const packages = createRequire(path.join(process.env.PACKAGES ?? path.join(__dirname, '..', 'js'), 'package.json'));
const { Emitter } = packages('@socket.io/redis-emitter');
const msgpack = packages('notepack.io');
const folder = path.join(__dirname, 'corpus', 'emitter');
fs.mkdirSync(folder, { recursive: true });

let name;
const emitter = new Emitter({ publish: (_channel, message) => fs.writeFileSync(path.join(folder, name), message) });
const make = (file, act) => ((name = file), act(emitter));

make('all', (io) => io.emit('news', 'x'));
make('rooms', (io) => io.of('/chat').to('lobby').to(['a', 'b']).except('c').volatile.emit('say', { text: 'ä', n: [1, -2, 300, 1.5, null] }));
make('binary', (io) => io.to('r').emit('bin', Buffer.from([0, 1, 2]), { deep: [{ b: Buffer.from('x') }] }));
make('dates', (io) => io.emit('at', new Date(0), new Date(1767225600123), NaN, undefined, 1e300, 4294967296));
make('join', (io) => io.in('room1').socketsJoin(['r2', 'r3']));
make('leave', (io) => io.in('room1').except('r9').socketsLeave('r2'));
make('disconnect', (io) => io.in('room1').disconnectSockets(true));
make('server_side', (io) => io.serverSideEmit('hello', 1, { a: 'b' }));

// What only servers ask, as the adapter writes it.
const ask = (file, message) => fs.writeFileSync(path.join(folder, file), message);
ask('sockets', JSON.stringify({ uid: 'abcdef', requestId: 'q', type: 0, rooms: ['a'] }));
ask('all_rooms', JSON.stringify({ uid: 'abcdef', requestId: 'q', type: 1 }));
ask('fetch', JSON.stringify({ uid: 'abcdef', requestId: 'q', type: 5, opts: { rooms: ['a'], except: [] } }));
ask('old_join', JSON.stringify({ uid: 'abcdef', requestId: 'q', type: 2, sid: 's', room: 'r' }));
const packet = { type: 2, data: ['e', 1], nsp: '/' };
const opts = { rooms: ['r'], except: [], flags: { volatile: true } };
ask('with_ack', msgpack.encode({ uid: 'abcdef', requestId: 'q', type: 7, packet, opts }));
ask('ours', msgpack.encode(['abcdef', packet, opts, Buffer.from('ours')]));
