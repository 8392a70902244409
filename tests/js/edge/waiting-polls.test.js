// A poll that waits for its answer is taken out of the HTTP library meanwhile. Clients must not notice that.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, afterEach, test } from 'node:test';
import { byHand } from '../harness/by-hand.js';
import { eventually } from '../harness/eventually.js';
import { Node } from '../harness/node.js';
import { ENGINE } from '../harness/world.js';

const node = await Node.start({ contracts: ['embedded:chat'], env: { ROOMCAST_SERVER__CORS_ORIGINS: '["https://app.example"]' } });
const { path, get, connected } = byHand(node);
const streams = new Set();
after(() => node.stop());
afterEach(() => {
  streams.forEach((stream) => stream.destroy());
  streams.clear();
});

const emit = async ({ id }, n) => await node.emit({ namespace: '/', sockets: [id], event: 'n', args: [n] });
const request = (url, headers = '', version = '1.1') => `GET ${url} HTTP/${version}\r\nHost: x\r\n${headers}\r\n`;
const sessions = async () => await node.metric('roomcast_transports', { transport: 'polling' });

/** Opens a TCP connection that collects the answers. */
function stream() {
  const { hostname, port } = new URL(node.url);
  const made = net.connect({ host: hostname, port, allowHalfOpen: true });
  streams.add(made);
  made.text = '';
  made.on('data', (data) => (made.text += data)).on('error', () => {});
  made.on('end', () => (made.over = true));
  made.answers = () => {
    const found = [];
    for (let rest = made.text; rest.includes('\r\n\r\n'); ) {
      const end = rest.indexOf('\r\n\r\n') + 4;
      const head = rest.slice(0, end);
      const length = Number(/content-length: (\d+)/i.exec(head)[1]);
      if (rest.length < end + length) break;
      found.push({ head: head.toLowerCase(), status: Number(head.slice(9, 12)), body: rest.slice(end, end + length) });
      rest = rest.slice(end + length);
    }
    return found;
  };
  made.answered = async (count) =>
    await eventually(`${count} answers`, () => made.answers().length >= count && made.answers());
  return made;
}

test('polls follow each other on one connection, each of them after it has waited', async () => {
  const made = await connected();
  const client = stream();
  for (let n = 1; n <= 5; n += 1) {
    client.write(request(made.url, 'Origin: https://app.example\r\n'));
    await emit(made, n);
    const answers = await client.answered(n);
    assert.equal(answers[n - 1].body, `42["n",${n}]`);
    assert.match(answers[n - 1].head, /access-control-allow-origin: https:\/\/app.example\r\n/);
    assert.match(answers[n - 1].head, /cache-control: no-store\r\n/);
    assert.match(answers[n - 1].head, /date: /);
    assert.doesNotMatch(answers[n - 1].head, /connection: close/);
  }
  assert.equal(client.over, undefined);
});

test('requests that come while a poll waits are answered after it, whole or in parts', async () => {
  const made = await connected();
  const client = stream();
  const unknown = request(`${path}polling&sid=unknown`);
  client.write(request(made.url) + unknown);
  for (const part of [unknown.slice(0, 7), unknown.slice(7, 40), unknown.slice(40)]) {
    await new Promise((resolve) => client.write(part, resolve));
    await node.metric('roomcast_transports', { transport: 'polling' });
  }
  assert.deepEqual(client.answers(), []);
  await emit(made, 1);
  const answers = await client.answered(3);
  assert.deepEqual(answers.map(({ status }) => status), [200, 400, 400]);
  assert.equal(answers[0].body, '42["n",1]');
  client.write(request(made.url));
  await emit(made, 2);
  assert.equal((await client.answered(4))[3].body, '42["n",2]');
});

for (const [what, headers, version] of [
  ['asks for its connection to be closed', 'Connection: close\r\n', '1.1'],
  ['is of HTTP 1.0', '', '1.0'],
]) {
  test(`a poll that ${what} is answered, and then the connection closes`, async () => {
    const made = await connected();
    const client = stream();
    client.write(request(made.url, headers, version));
    await emit(made, 1);
    await eventually('the connection closes', () => client.over);
    assert.equal(client.answers()[0].body, '42["n",1]');
    assert.match(client.text, new RegExp(`^HTTP/${version} 200`));
    if (version === '1.1') assert.match(client.answers()[0].head, /connection: close\r\n/);
  });
}

// This test runs on the native engine only: socketioxide keeps the session of a client that aborts its poll.
if (ENGINE === 'native') {
  test('a client that goes while its poll waits is gone', async () => {
    const before = await sessions();
    const made = await connected();
    const client = stream();
    client.write(request(made.url));
    await emit(made, 1);
    await client.answered(1);
    client.write(request(made.url));
    assert.equal(await sessions(), before + 1);
    client.end();
    await eventually('the session ends', async () => (await sessions()) === before);
    await eventually('the connection closes', () => client.over);
    assert.equal((await get(made.url)).status, 400);
  });
}
