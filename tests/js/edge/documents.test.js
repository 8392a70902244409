// The README and the pages in docs/ do what they show. A block marked `console run` is pasted into a shell, beside a node that has
// the page's first contract (`toml file`), or else the README's. A block marked `toml settings` is a configuration file.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { Client } from '../harness/client.js';
import { like, timestamp } from '../harness/eventually.js';
import { API_KEY, Node, ROOT, binary } from '../harness/node.js';
import { start, tail, temporary } from '../harness/process.js';

const folder = temporary('documents');
const read = (page) => readFileSync(join(ROOT, page), 'utf8');
const blocks = (page, info) => [...read(page).matchAll(new RegExp(`^\`\`\`${info}\\n(.*?)^\`\`\``, 'gms'))].map(([, text]) => text);

function write(name, text) {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

const contract = write('parcels.toml', blocks('README.md', 'toml')[0]);

/** The commands of a block, each with the output lines that the page shows. */
function steps(block) {
  const parts = block.replace(/\\\n/g, ' ').split(/^\$ /m).slice(1);
  return parts.map((part) => {
    const [command, ...shown] = part.trimEnd().split('\n');
    return { command: command.replace(/\s+# .*$/, ''), shown };
  });
}

/** Runs a command of a page with this node's addresses, and with a key and a token. Returns the command's output. */
async function paste(node, command) {
  const here = command.replaceAll('http://127.0.0.1:3001', node.apiUrl).replaceAll('http://127.0.0.1:3000', node.url).replaceAll('curl ', 'curl -sS ');
  const env = { KEY: API_KEY, PATH: `${dirname(binary())}:${process.env.PATH}` };
  const call = start('bash', ['-c', here], { env, cwd: node.dir });
  assert.equal((await call.done).code, 0, `${command}: ${tail(call)}`);
  return call.lines.filter(({ from }) => from === 'stdout').map(({ text }) => text);
}

/** Compares an answer with what a page shows, where `…` stands for anything. A page's node may be one of a cluster; this one is alone. */
function agrees(command, answer, shown) {
  for (const line of shown.filter((line) => line !== '…')) {
    const literal = line.replace('"carried"', '"alone"').replace(/[.*+?^${}()|[\]\\]/g, '\\$&').replaceAll('…', '.*');
    assert.ok(answer.some((given) => new RegExp(`^${literal}$`).test(given)), `${command} answers\n${answer.join('\n')}\nand not\n${line}`);
  }
}

test("the README's contract has no mistakes", async () => {
  const check = start(binary(), ['check', 'parcels.toml'], { cwd: folder });
  assert.equal((await check.done).code, 0, tail(check));
});

test("the README's commands bring an event to the client, and answer what is shown", async () => {
  const node = await Node.start({ contracts: [contract] });
  after(() => node.stop());
  const [own, publish, ...others] = steps(blocks('README.md', 'console')[1]);
  assert.deepEqual(others, []);
  agrees(own.command, await paste(node, own.command), own.shown);
  const alice = await Client.connect(node, { user: 'alice' });
  after(() => alice.close());
  assert.deepEqual(await alice.ask('parcel:watch', '7'), { success: true, room: 'parcel:7' });
  agrees(publish.command, await paste(node, publish.command), publish.shown);
  like(await alice.next(), ['parcel:moved', { parcelId: '7', place: 'Ulm', timestamp }]);
});

const pages = readdirSync(join(ROOT, 'docs')).filter((file) => file.endsWith('.md')).map((file) => `docs/${file}`);

for (const page of pages.filter((page) => blocks(page, 'console run').length > 0)) {
  test(`the commands of ${page} work when pasted`, async () => {
    const [own] = blocks(page, 'toml file');
    const node = await Node.start({ contracts: [own ? write('own.toml', own) : contract] });
    after(() => node.stop());
    for (const { command, shown } of blocks(page, 'console run').flatMap(steps)) {
      agrees(command, await paste(node, command), shown);
    }
  });
}

test('examples of settings are accepted', async () => {
  const examples = pages.flatMap((page) => blocks(page, 'toml settings').map((text) => ({ page, text })));
  assert.ok(examples.length >= 4, `${examples.length} examples`);
  for (const { page, text } of examples) {
    const config = start(binary(), ['config', '--config', write('roomcast.toml', text)], { cwd: folder });
    assert.equal((await config.done).code, 0, `${page}: ${tail(config)}`);
  }
});
