// Writes the seeds that Socket.IO's own emitter, adapter and MessagePack parser make: `node seeds.cjs`, with the packages of tests/js installed.
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

// Packets of clients, as socket.io-msgpack-parser writes them.
const packets = path.join(__dirname, 'corpus', 'msgpack_packet');
fs.mkdirSync(packets, { recursive: true });
const { Encoder } = packages('socket.io-msgpack-parser');
const save = (file, message) => fs.writeFileSync(path.join(packets, file), message);
const say = (file, members) => save(file, new Encoder().encode({ nsp: '/', ...members })[0]);
say('connect', { type: 0, nsp: '/admin', data: { token: 'x' } });
say('disconnect', { type: 1, nsp: '/a?b=c' });
say('event', { type: 2, data: ['a', 1, -2.5, { a: [true, null, 'ü'] }, 2 ** 53 - 1, -(2 ** 40)], options: { compress: true }, id: 7 });
say('binary', { type: 2, data: ['a', Buffer.from([0, 255]), { b: [Buffer.alloc(300)] }] });
say('placeholder', { type: 2, data: ['a', { _placeholder: true, num: 0 }, Buffer.from('x')] });
say('dates', { type: 2, data: ['a', new Date(0), new Date(1764590400123), new Date(-1)] });
say('nan', { type: 2, data: ['a', NaN, Infinity] });
say('long', { type: 2, data: ['a', ...Array(40).fill(0), 'x'.repeat(70_000)] });
say('ack', { type: 3, data: [1, 'two'], id: 0 });
const head = Buffer.from('83a47479706502a36e7370a12fa464617461', 'hex');
save('extension', Buffer.concat([head, Buffer.from('92a161d40701', 'hex')]));
save('deep', Buffer.concat([head, Buffer.from('92a161', 'hex'), Buffer.alloc(200, 0x91), Buffer.from([0])]));
