// Checks that the commands that `make run` prints work: the client receives the event that the curl command causes.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, binary } from '../harness/node.js';
import { line, start, stop, tail, temporary } from '../harness/process.js';

const folder = temporary('run');
const running = [];
after(async () => {
  await Promise.all(running.map((process) => stop(process)));
});

/** Lines without their indentation, from the first that matches to the last that belongs to it. */
function block(lines, first, belongs) {
  const at = lines.findIndex((text) => first.test(text));
  assert.ok(at >= 0, `nothing like ${first} in:\n${lines.join('\n')}`);
  const found = [];
  for (const text of lines.slice(at)) {
    if (found.length && !belongs(text, found.at(-1))) break;
    found.push(text);
  }
  return found.join('\n');
}

test('the printed client sees the event of the printed curl', async () => {
  const env = { ROOMCAST_SERVER__LISTEN: '127.0.0.1:0', ROOMCAST_API__LISTEN: '127.0.0.1:0' };
  const node = start(binary(), ['serve', '--dev'], { cwd: folder, env });
  running.push(node);
  await line(node, (text) => /^\s*curl /.test(text));
  await line(node, (text) => /-d |--data/.test(text));
  const lines = node.lines.filter(({ from }) => from === 'stdout').map(({ text }) => text.trim());

  const program = block(lines, /socket\.io-client/, (text) => text !== '' && !/^(curl|npm) /.test(text));
  writeFileSync(join(folder, 'client.mjs'), program);
  symlinkSync(join(ROOT, 'tests/js/node_modules'), join(folder, 'node_modules'));
  assert.ok(program.split('\n').length <= 12, 'about ten lines');
  const client = start(process.execPath, ['client.mjs'], { cwd: folder });
  running.push(client);

  // A web page under development has another origin than the node, and the official client begins with polling.
  const [, clients] = /clients\s+(http\S+)/.exec(lines.join('\n'));
  const page = await fetch(`${clients}/socket.io/?EIO=4&transport=polling`, { headers: { origin: 'http://127.0.0.1:5173' } });
  assert.equal(page.status, 200);
  assert.ok(['*', 'http://127.0.0.1:5173'].includes(page.headers.get('access-control-allow-origin')));

  const curl = block(lines, /^curl /, (_, before) => before.endsWith('\\'));
  const { event } = JSON.parse(/'(\{.*\})'/s.exec(curl)[1]);
  // The client prints nothing until it is connected and subscribed, so the curl command is repeated until the event
  // arrives.
  const heard = line(client, (text) => text.includes(event), 20_000);
  let over = false;
  const calling = (async () => {
    while (!over) {
      const call = start('bash', ['-c', curl]);
      const { code } = await call.done;
      assert.equal(code, 0, tail(call));
      assert.match(tail(call), /"accepted":\s*true/);
    }
  })();
  await heard;
  over = true;
  await calling;
});

test('a wrong configuration ends with 64, and says every mistake', async () => {
  const file = join(folder, 'wrong.toml');
  writeFileSync(file, '[server]\nping_intervall = "25s"\nmax_payload = "much"\n');
  const wrong = start(binary(), ['serve', '--config', file], { cwd: folder });
  assert.equal((await wrong.done).code, 64);
  assert.match(tail(wrong), /ping_intervall/);
  assert.match(tail(wrong), /max_payload/);
});

test('a wrong contract ends with 64, and names file, line and key', async () => {
  const file = join(folder, 'wrong-contract.toml');
  writeFileSync(file, 'name = "x"\nnamespace = "/"\n[client.a]\njoin = "nowhere"\nlimmit = "1/s"\n');
  const check = start(binary(), ['check', file], { cwd: folder });
  assert.equal((await check.done).code, 64);
  assert.match(tail(check), /wrong-contract\.toml:4/);
  assert.match(tail(check), /nowhere/);
  assert.match(tail(check), /limmit/);
});

test('the shipped contracts are right', async () => {
  const check = start(binary(), ['check', join(ROOT, 'contracts')], { cwd: folder });
  assert.equal((await check.done).code, 0, tail(check));
});

test('a port that is taken ends with 1', async () => {
  const first = start(binary(), ['serve', '--dev'], {
    cwd: folder,
    env: { ROOMCAST_SERVER__LISTEN: '127.0.0.1:0', ROOMCAST_API__LISTEN: '127.0.0.1:0', ROOMCAST_ANNOUNCE: '1' },
  });
  running.push(first);
  const { server } = await line(first, (text) => text.startsWith('{"ready"') && JSON.parse(text));
  const second = start(binary(), ['serve', '--dev'], { cwd: folder, env: { ROOMCAST_SERVER__LISTEN: server } });
  assert.equal((await second.done).code, 1);
});

test('the effective configuration hides secrets', async () => {
  const config = start(binary(), ['config'], { cwd: folder, env: { ROOMCAST_REDIS__PASSWORD: 'do-not-show' } });
  assert.equal((await config.done).code, 0, tail(config));
  assert.doesNotMatch(tail(config, 400), /do-not-show/);
});
