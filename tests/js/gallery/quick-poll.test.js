// A poll: a backend counts one vote of each user, and everybody in the poll sees the results.
import { Backend } from '../harness/backend.js';
import { gallery } from '../harness/transcript.js';

const CHOICES = ['yes', 'no'];
const user = (socket) => JSON.parse(Buffer.from(socket.handshake.auth.token.split('.')[1], 'base64url')).sub;

/** The business logic, which is the same in the Node server and in the backend of the contract. */
function ballots() {
  const votes = new Map();
  return (poll, name, choice) => {
    const cast = votes.get(poll) ?? votes.set(poll, new Map()).get(poll);
    if (cast.has(name)) return undefined;
    cast.set(name, choice);
    return Object.fromEntries(CHOICES.map((one) => [one, [...cast.values()].filter((vote) => vote === one).length]));
  };
}

gallery('quick-poll', {
  serve(io) {
    const vote = ballots();
    io.on('connection', (socket) => {
      socket.on('open', (poll, ack) => {
        socket.join(`poll:${poll}`);
        ack({ ok: true });
      });
      socket.on('vote', (poll, choice, ack) => {
        if (!CHOICES.includes(choice)) return ack({ ok: false, code: 'INVALID_PAYLOAD' });
        const results = vote(poll, user(socket), choice);
        if (!results) return ack({ ok: false, code: 'VOTED' });
        io.to(`poll:${poll}`).emit('results', results);
        ack({ ok: true });
      });
    });
  },
  async backend() {
    const vote = ballots();
    const backend = await Backend.start(({ data: { user: { id }, payload } }) => {
      const results = vote(payload.poll, id, payload.choice);
      if (!results) return { ok: false, error: { code: 'VOTED', message: 'one vote for each user' } };
      return { ack: { ok: true }, publish: [{ event: 'results', data: results, params: { poll: payload.poll } }] };
    });
    return { toml: backend.toml('poll'), stop: () => backend.stop() };
  },
  async play(stage) {
    for (const who of ['ann', 'ben', 'cat']) {
      await stage.connect(who, { user: who });
      await stage.ask(who, 'open', 'p1');
    }
    await stage.ask('ann', 'vote', 'p1', 'yes');
    await stage.ask('ben', 'vote', 'p1', 'no');
    await stage.ask('ann', 'vote', 'p1', 'no');
    await stage.ask('cat', 'vote', 'p1', 'perhaps');
    await stage.ask('cat', 'vote', 'p1', 'yes');
  },
});
