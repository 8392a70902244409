// Child processes that end with the test process, however the test process ends.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from './eventually.js';

const children = new Set();
const folders = new Set();
const KEPT_LINES = 400;

// With setpriv (of util-linux) the kernel also ends the children when this process is killed. On systems without
// setpriv only the code below ends them.
const LEASH = ['/usr/bin/setpriv', '--pdeathsig', 'KILL', '--'];
const leash = existsSync(LEASH[0]) ? LEASH : [];

process.on('exit', () => {
  children.forEach((child) => child.kill('SIGKILL'));
  folders.forEach((folder) => rmSync(folder, { recursive: true, force: true }));
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** A folder that is deleted at the end of the test process. */
export function temporary(name) {
  const folder = mkdtempSync(join(tmpdir(), `roomcast-${name}-`));
  folders.add(folder);
  return folder;
}

/** Suspends a program (SIGSTOP). Resolves when all of its threads have stopped. */
export async function freeze({ child: { pid } }) {
  process.kill(pid, 'SIGSTOP');
  const stands = (thread) => /^State:\s*T/m.test(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'));
  await eventually('all threads stand', () => readdirSync(`/proc/${pid}/task`).every(stands));
}

/** Starts a program and keeps its last lines. `lines` of the result are { from, text }. */
export function start(command, args, { env = {}, cwd } = {}) {
  const [program, ...rest] = [...leash, command, ...args];
  const child = spawn(program, rest, { cwd, env: { ...inherited(), ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  const running = { child, lines: [], waiting: new Set(), exited: false, name: command.split('/').pop() };
  children.add(child);
  running.done = new Promise((resolve) => {
    child.once('error', (error) => {
      keep(running, 'stderr', String(error));
      resolve({ code: -1, signal: null });
    });
    child.once('close', (code, signal) => resolve({ code, signal }));
  }).then((end) => {
    children.delete(child);
    running.exited = true;
    running.end = end;
    running.waiting.forEach((look) => look());
    return end;
  });
  read(running, 'stdout');
  read(running, 'stderr');
  return running;
}

// Children do not inherit ROOMCAST variables from this process, except the variable for the engine, which run.js sets.
const SETTING = /^(ROOMCAST|WEBSOCKET)_|^REDIS_URL$/;
const ENGINE = 'ROOMCAST_SERVER__ENGINE';

function inherited() {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => name === ENGINE || !SETTING.test(name)));
}

/** The first line for which `pick` returns something. Fails when the program ends or the deadline passes. */
export async function line(running, pick, deadline = 30_000) {
  return await new Promise((resolve, reject) => {
    let at = 0;
    const stop = (act, value) => {
      clearTimeout(timer);
      running.waiting.delete(look);
      act(value);
    };
    const look = () => {
      for (; at < running.lines.length; at += 1) {
        const found = pick(running.lines[at].text, running.lines[at].from);
        if (found) return stop(resolve, found);
      }
      if (running.exited) stop(reject, new Error(`${running.name} ended: ${JSON.stringify(running.end)}\n${tail(running)}`));
    };
    const timer = setTimeout(
      () => stop(reject, new Error(`${running.name} did not say so within ${deadline} ms\n${tail(running)}`)),
      deadline,
    );
    running.waiting.add(look);
    look();
  });
}

/** Ends a program, and waits for its end. */
export async function stop(running, signal = 'SIGTERM', deadline = 10_000) {
  if (running.exited) return running.end;
  running.child.kill(signal);
  const timer = setTimeout(() => running.child.kill('SIGKILL'), deadline);
  const end = await running.done;
  clearTimeout(timer);
  return end;
}

/** The last output lines of the program, as one text. */
export function tail(running, count = 40) {
  return running.lines.slice(-count).map(({ text }) => `  | ${text}`).join('\n');
}

function read(running, from) {
  let rest = '';
  const stream = running.child[from].setEncoding('utf8');
  stream.on('data', (text) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop();
    parts.forEach((part) => keep(running, from, part));
    running.waiting.forEach((look) => look());
  });
  stream.on('end', () => rest && keep(running, from, rest));
}

function keep(running, from, text) {
  if (process.env.JS_TEST_LOG) process.stderr.write(`${running.name} | ${text}\n`);
  running.lines.push({ from, text });
  // A waiting reader keeps its position in `lines`, so lines are dropped only when no reader waits.
  if (running.waiting.size === 0 && running.lines.length > KEPT_LINES) running.lines.splice(0, KEPT_LINES / 2);
}

/** Resolves with the arguments of an emitter's next event, within a deadline. */
export async function event(emitter, name, deadline = 10_000) {
  return await once(emitter, name, { signal: AbortSignal.timeout(deadline) });
}
