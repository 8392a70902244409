// `roomcast doctor` against correct deployments, and against common mistakes.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { eventually } from '../harness/eventually.js';
import { Nginx } from '../harness/nginx.js';
import { API_KEY, Node, ROOT, binary } from '../harness/node.js';
import { start, stop, temporary } from '../harness/process.js';
import { Redis, freePort } from '../harness/redis.js';
import { seconds, token } from '../harness/token.js';

const ORIGIN = 'https://app.example.com';
// Short ping intervals, so that proxies with short time-outs are found sooner.
const env = {
  ROOMCAST_SERVER__PING_INTERVAL: '1s',
  ROOMCAST_SERVER__PING_TIMEOUT: '1s',
  ROOMCAST_SERVER__CORS_ORIGINS: `["${ORIGIN}"]`,
};
const contracts = ['embedded:chat'];
const redis = await Redis.start();
const nodes = await Promise.all([1, 2].map(() => Node.start({ contracts, redis, env })));
const [one, two] = nodes.map(({ url }) => url.slice(7));
const started = [];
after(async () => {
  await Promise.all(started.map((nginx) => stop(nginx, 'SIGQUIT', 1_000)));
  await Promise.all(nodes.map((node) => node.stop()));
  await redis.stop();
});

/** Runs the doctor. Returns { code, ok, findings }, with the findings by check. */
async function doctor(url, ...args) {
  const running = start(binary(), ['doctor', url, '--json', '--polls', '6', ...args]);
  const { code } = await running.done;
  const told = running.lines.filter(({ from }) => from === 'stdout').map(({ text }) => text).join('\n');
  const report = JSON.parse(told);
  const findings = Object.fromEntries(report.findings.map((finding) => [finding.check, finding]));
  for (const { level, remedy, check } of report.findings) assert.equal(level === 'ok', remedy === undefined, check);
  assert.equal(code, report.ok ? 0 : 1);
  return { ...report, findings };
}

const levels = ({ findings }) => Object.fromEntries(Object.values(findings).map(({ check, level }) => [check, level]));

/** Starts an nginx whose configuration has common mistakes. */
async function front({ nodes: list = [one], location = '', upgrades = true, server = '', http = '', target = 'nodes' }) {
  const [folder, port] = [temporary('doctor'), await freePort()];
  const headers = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";';
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; master_process off; pid ${folder}/pid; error_log stderr warn; events {}
     http { access_log off; client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p;
       fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
       ${http} upstream nodes { ${list.map((node) => `server ${node};`).join(' ')} }
       server { listen 127.0.0.1:${port}; ${server}
         location / { proxy_pass http://${target}; proxy_set_header Host $host; ${upgrades ? headers : ''} ${location} } } }`,
  );
  started.push(start('nginx', ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', 'stderr']));
  const url = `http://127.0.0.1:${port}`;
  await eventually('nginx answers', async () => (await fetch(`${url}/live`)).status === 200);
  return url;
}

describe('a deployment that is right', { concurrency: true }, () => {
  test('the front door of nginx/ has no problem, and everything is looked at', async () => {
    const nginx = await Nginx.start([one, two]);
    started.push(nginx.process);
    const args = ['--api', nodes[0].apiUrl, '--key', API_KEY, '--redis', redis.url, '--origin', ORIGIN];
    // The level of these findings depends on the machine, so any level is accepted.
    const rest = { 'api.open_files': 'any', 'redis.delay': 'any' };
    // The findings must contain every check in docs/doctor.md, except the check that runs only when Redis does not
    // answer.
    const page = readFileSync(join(ROOT, 'docs/doctor.md'), 'utf8');
    const documented = [...page.matchAll(/^\| `.*?\|/gm)].flatMap(([cell]) => [...cell.matchAll(/`([\w.]+)`/g)].map(([, name]) => name));
    const report = await doctor(nginx.url, ...args, '--token', token({ sub: 'ada' }));
    assert.equal(report.ok, true, JSON.stringify(report, null, 1));
    assert.deepEqual({ ...levels(report), ...rest }, {
      'handshake.polling': 'ok',
      stickiness: 'ok',
      'stickiness.no_cookies': 'ok',
      'handshake.websocket': 'ok',
      upgrade: 'ok',
      'patience.websocket': 'ok',
      'patience.polling': 'ok',
      'cors.strangers': 'ok',
      cors: 'ok',
      clock: 'ok',
      'token.times': 'ok',
      'token.accepted': 'ok',
      'api.ready': 'ok',
      'api.clients': 'ok',
      'api.key': 'ok',
      'redis.writes': 'ok', 'redis.version': 'ok',
      'redis.mode': 'ok',
      'redis.output_buffer': 'ok',
      'redis.eviction': 'ok',
      ...rest,
    });
    assert.deepEqual(Object.keys(levels(report)).sort(), documented.filter((name) => name !== 'redis').sort());
    assert.match(report.findings['api.ready'].found, /2 nodes/);
  });

  test('people get text, and secrets are in neither', async () => {
    const secret = token({ sub: 'ada' });
    const running = start(binary(), ['doctor', nodes[0].url, '--token', secret, '--polls', '1']);
    assert.equal((await running.done).code, 0);
    const told = running.lines.map(({ text }) => text).join('\n');
    assert.match(told, /\n +ok {2}handshake\.polling: a session opened in \d+ ms \(ping every 1 s, time-out 1 s, at most 1000000 bytes\)\n/);
    assert.match(told, /\n0 problems, \d+ warnings, \d+ things looked at$/);
    assert.equal(told.includes(secret), false);
  });
});

describe('deployments that are wrong', { concurrency: 3 }, () => {
  test('a proxy that passes no upgrades on', async () => {
    const report = await doctor(await front({ upgrades: false }));
    assert.equal(levels(report)['handshake.websocket'], 'problem');
    assert.equal(levels(report).upgrade, 'problem');
    assert.equal(levels(report).stickiness, 'ok');
    assert.match(report.findings.upgrade.remedy, /Connection: upgrade/);
  });

  test('two nodes in turns', async () => {
    const report = await doctor(await front({ nodes: [one, two] }));
    assert.equal(levels(report).stickiness, 'problem');
    assert.match(report.findings.stickiness.found, /lost at request \d+ of 6/);
    assert.match(report.findings.stickiness.remedy, /`cluster\.listen`/);
    assert.equal(levels(report)['handshake.websocket'], 'ok');
  });

  test('what is known to be wrong is left out when it is named, and what is not known is refused', async () => {
    const url = await front({ nodes: [one, two] });
    const report = await doctor(url, '--skip', 'stickiness,upgrade', '--skip', 'patience');
    const made = Object.keys(levels(report));
    assert.equal(report.ok, true, JSON.stringify(report, null, 1));
    assert.deepEqual(made.filter((name) => /^(stickiness|upgrade|patience)/.test(name)), []);
    assert.ok(made.includes('handshake.websocket') && made.includes('clock'));
    for (const [name, why] of [['sticky', /no check "sticky".*stickiness/], ['handshake', /begins with it/]]) {
      const wrong = start(binary(), ['doctor', url, '--skip', name]);
      assert.equal((await wrong.done).code, 64);
      assert.match(wrong.lines.map(({ text }) => text).join(' '), why);
    }
  });

  test('a proxy that sticks by a cookie alone is a warning for those who keep none', async () => {
    // Clients without the cookie change to the other node as soon as they have a session.
    const http = `map "$arg_sid|$cookie_node" $chosen { default ${one}; "~^.+[|]$" ${two}; }`;
    const server = 'add_header Set-Cookie "node=one; Path=/" always;';
    const report = await doctor(await front({ http, server, target: '$chosen' }));
    assert.deepEqual([levels(report).stickiness, levels(report)['stickiness.no_cookies']], ['ok', 'warning']);
    assert.equal(report.ok, true);
  });

  test('a proxy with less patience than the pings need', async () => {
    const report = await doctor(await front({ location: 'proxy_read_timeout 500ms;' }));
    assert.equal(levels(report)['patience.websocket'], 'problem');
    assert.equal(levels(report)['patience.polling'], 'problem');
    assert.match(report.findings['patience.websocket'].found, /ended after 0\.\d s/);
    assert.match(report.findings['patience.websocket'].remedy, /proxy_read_timeout/);
  });

  test('a proxy that is patient with messages, but not with silence until the node gives up', async () => {
    const nodeWithPatience = await Node.start({ contracts, env: { ...env, ROOMCAST_SERVER__PING_TIMEOUT: '4s' } });
    try {
      const url = await front({ nodes: [nodeWithPatience.url.slice(7)], location: 'proxy_read_timeout 2s;' });
      assert.equal(levels(await doctor(url))['patience.websocket'], 'warning');
    } finally {
      await nodeWithPatience.stop();
    }
  });

  test('a page that the nodes do not know, and a proxy that answers for them', async () => {
    const wrong = await doctor(nodes[0].url, '--origin', 'https://other.example.com');
    assert.equal(levels(wrong).cors, 'problem');
    assert.match(wrong.findings.cors.remedy, /cors_origins/);
    const url = await front({ location: `add_header Access-Control-Allow-Origin "${ORIGIN}" always;` });
    const doubled = await doctor(url, '--origin', ORIGIN);
    assert.match(doubled.findings.cors.found, /comes twice/);
  });

  test('tokens of a clock that is ahead, and such as nobody here has signed', async () => {
    const ahead = await doctor(nodes[0].url, '--token', token({ sub: 'ada', iat: seconds(120), nbf: seconds(120) }));
    assert.equal(levels(ahead)['token.times'], 'problem');
    assert.match(ahead.findings['token.times'].found, /in the node's future/);
    assert.equal(levels(ahead)['token.accepted'], 'problem');
    const strange = await doctor(nodes[0].url, '--token', token({ sub: 'ada' }, { secret: 'x'.repeat(40) }));
    assert.equal(levels(strange)['token.times'], 'ok');
    assert.match(strange.findings['token.accepted'].found, /AUTHENTICATION_FAILED/);
  });

  test('a wrong key, and a Redis that cuts nodes off, evicts, or is not one', async () => {
    const small = await Redis.start();
    try {
      await small.call('CONFIG', 'SET', 'client-output-buffer-limit', 'pubsub 1mb 1mb 10');
      await small.call('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
      const report = await doctor(nodes[0].url, '--redis', small.url, '--api', nodes[0].apiUrl, '--key', 'x'.repeat(20));
      assert.equal(levels(report)['redis.output_buffer'], 'problem');
      assert.equal(levels(report)['redis.eviction'], 'warning');
      assert.equal(levels(report)['api.key'], 'problem');
      const cluster = await doctor(nodes[0].url, '--redis', small.url.replace('redis:', 'redis-cluster:'));
      assert.equal(cluster.ok, false);
      assert.match(cluster.findings.redis.found, /^wrong_server: /);
      await small.call('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
      await small.call('CONFIG', 'SET', 'maxmemory', '1mb');
      const full = await doctor(nodes[0].url, '--redis', small.url);
      assert.equal(levels(full)['redis.writes'], 'problem');
      assert.match(full.findings['redis.writes'].found, /^out_of_memory: .*OOM/);
    } finally {
      await small.stop();
    }
    const away = await doctor(nodes[0].url, '--redis', small.url);
    assert.equal(levels(away).redis, 'problem');
    assert.match(away.findings.redis.found, /^refused: no server listens/);
  });

  test('nobody there, or somebody else', async () => {
    const nobody = await doctor(`http://127.0.0.1:${await freePort()}`);
    assert.deepEqual(levels(nobody), { 'handshake.polling': 'problem' });
    const other = await doctor(nodes[0].apiUrl);
    assert.match(other.findings['handshake.polling'].found, /404/);
  });

  test('it ends in time whatever it meets', async () => {
    const began = Date.now();
    const report = await doctor(nodes[0].url, '--patience', '500ms');
    assert.ok(Date.now() - began < 8_000);
    assert.equal(levels(report)['patience.websocket'], 'unknown');
    assert.match(report.findings['patience.websocket'].found, /longer than 0.5 s/);
  });

  test('wrong usage ends with 64', async () => {
    for (const args of [['ftp://x'], ['rubbish'], [nodes[0].url, '--patience', 'long'], [nodes[0].url, '--key', 'k']]) {
      assert.equal((await start(binary(), ['doctor', ...args]).done).code, 64, args.join(' '));
    }
  });
});
