// The README's contract is one, and its commands do what it says.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { like, timestamp } from '../harness/eventually.js';
import { API_KEY, Node, ROOT, binary } from '../harness/node.js';
import { start, tail, temporary } from '../harness/process.js';

const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
const blocks = (language) => [...readme.matchAll(new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, 'gs'))].map(([, text]) => text);
const folder = temporary('readme');
const contract = join(folder, 'parcels.toml');
writeFileSync(contract, blocks('toml')[0]);

test('the contract has no mistakes', async () => {
  const check = start(binary(), ['check', 'parcels.toml'], { cwd: folder });
  assert.equal((await check.done).code, 0, tail(check));
});

test('the commands bring an event to the client, and answer what is shown', async () => {
  const node = await Node.start({ contracts: [contract] });
  after(() => node.stop());
  const [, shown] = blocks('console');
  const commands = shown.replace(/\\\n/g, ' ').split('\n').filter((line) => line.startsWith('$ '));
  assert.equal(commands.length, 2);
  const run = async (command) => {
    const here = command.slice(2).replace('http://127.0.0.1:3001', node.apiUrl).replace('curl', 'curl -sS');
    const call = start('bash', ['-c', here], { env: { KEY: API_KEY } });
    assert.equal((await call.done).code, 0, tail(call));
    return call.lines.map(({ text }) => text).join('');
  };
  await run(commands[0]);
  const alice = await Client.connect(node, { user: 'alice' });
  after(() => alice.close());
  assert.deepEqual(await alice.ask('parcel:watch', '7'), { success: true, room: 'parcel:7' });
  const answer = await run(commands[1]);
  // The README's node is one of a cluster, this one is alone.
  assert.equal(answer.replace('"alone"', '"carried"'), shown.split('\n').find((line) => line.startsWith('{')));
  like(await alice.next(), ['parcel:moved', { parcelId: '7', place: 'Ulm', timestamp }]);
});
