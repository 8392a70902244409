// Runs the suites in suites.json, in their modes, on every engine. Arguments select files by a part of their path, and
// JS_TEST_ENGINES selects engines. A suite that runs on one engine only names that engine in `engines`.
//
// Clients for which a suite asks no transport begin by polling and upgrade, as the official client does; those of
// suites that run in both modes open with a WebSocket in the second, and so do all clients of the engine socketioxide.
// JS_TEST_TRANSPORT sets the transport for all suites.
//
// A suite with `msgpack` runs once more in that mode, on the native engine, with clients that encode with
// socket.io-msgpack-parser. JS_TEST_PARSER (json, msgpack) selects the runs with one parser.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const suites = JSON.parse(readFileSync(join(here, 'suites.json'), 'utf8'));
const wanted = process.argv.slice(2);
const engines = (process.env.JS_TEST_ENGINES ?? 'native,socketioxide').split(',');
const CONCURRENCY = 2;
const FILE_TIMEOUT_MS = 240_000;

const chosen = process.env.JS_TEST_TRANSPORT;
const TRANSPORTS = ['upgrade', 'websocket'];
const parsers = (process.env.JS_TEST_PARSER ?? 'json,msgpack').split(',');

/** Whether a suite runs in a mode with clients of a parser. */
function runs({ modes, engines: only, msgpack }, engine, mode, parser) {
  if (parser === 'msgpack') return engine === 'native' && msgpack === mode;
  return modes.includes(mode) && (!only || only.includes(engine));
}

function transportOf({ modes }, mode, engine) {
  const websocketFirst = engine !== 'native' || (modes.length > 1 && mode === 'cluster');
  return chosen ?? (websocketFirst ? 'websocket' : 'upgrade');
}

async function runMode(engine, mode, transport, parser) {
  const files = suites
    .filter((suite) => runs(suite, engine, mode, parser))
    .filter((suite) => transportOf(suite, mode, engine) === transport)
    .filter(({ file }) => !wanted.length || wanted.some((part) => file.includes(part)))
    .map(({ file }) => join(here, file));
  if (!files.length) return { tests: 0, failed: 0 };
  process.env.JS_TEST_MODE = mode;
  process.env.JS_TEST_TRANSPORT = transport;
  process.env.JS_TEST_PARSER = parser;
  process.env.ROOMCAST_SERVER__ENGINE = engine;
  console.log(`\n=== ${engine}, ${mode}, ${transport}, ${parser}: ${files.length} files`);
  const counts = { tests: 0, failed: 0 };
  const stream = run({ files, concurrency: CONCURRENCY, timeout: FILE_TIMEOUT_MS });
  const count = (key) => (data) => {
    if (data.details?.type !== 'suite') counts[key] += 1;
  };
  stream.on('test:pass', count('tests')).on('test:fail', count('tests')).on('test:fail', (data) => {
    counts.failed += 1;
    console.log(`FAILED ${engine}, ${mode}, ${transport}, ${parser}: ${data.file ?? ''} ${data.name}`);
  });
  const report = stream.compose(spec);
  report.pipe(process.stdout);
  await new Promise((resolve, reject) => report.on('end', resolve).on('error', reject));
  return counts;
}

const started = Date.now();
const totals = { tests: 0, failed: 0 };
for (const engine of engines) {
  for (const mode of ['memory', 'cluster']) {
    for (const [transport, parser] of TRANSPORTS.flatMap((transport) => parsers.map((parser) => [transport, parser]))) {
      const { tests, failed } = await runMode(engine, mode, transport, parser);
      totals.tests += tests;
      totals.failed += failed;
    }
  }
}
const took = ((Date.now() - started) / 1000).toFixed(0);
console.log(`\njs tests: ${totals.tests} run, ${totals.tests - totals.failed} passed, ${totals.failed} failed, ${took} s`);
if (totals.failed > 0 || totals.tests === 0) process.exitCode = 1;
