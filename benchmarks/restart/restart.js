// Measures a rolling restart of three nodes behind nginx under thousands of official clients: `make bench-restart`.
// Arguments select fleets by a part of their names. BENCH_CLIENTS (5000), BENCH_PROCESSES (4), BENCH_RATE (400 connects
// per second at the start).
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FLEETS, Fleet, sleep, until } from './fleet.js';
import { table } from './report.js';

const here = dirname(fileURLToPath(import.meta.url));
const CLIENTS = Number(process.env.BENCH_CLIENTS ?? 5000);
const PROCESSES = Number(process.env.BENCH_PROCESSES ?? 4);
const RATE = Number(process.env.BENCH_RATE ?? 400);
// How long nothing must happen before the next restart, and how long a run may take to settle.
const CALM = 3_000;

class Crowd {
  constructor(url) {
    const each = CLIENTS / PROCESSES;
    this.processes = Array.from({ length: PROCESSES }, (_, at) => {
      const from = Math.round(at * each);
      const setting = { url, from, count: Math.round((at + 1) * each) - from, rate: RATE / PROCESSES };
      return fork(join(here, 'clients.js'), [JSON.stringify(setting)]);
    });
  }

  async ask(what) {
    return await Promise.all(this.processes.map(async (process) => {
      process.send(what);
      return (await once(process, 'message'))[0];
    }));
  }

  async everybody(deadline = 300_000) {
    let here;
    await until('everybody is connected', async () => {
      here = await this.ask('count');
      return here.reduce((sum, { connected }) => sum + connected, 0) === CLIENTS;
    }, deadline);
    return here;
  }

  end() {
    this.processes.forEach((process) => process.send('end'));
  }
}

/** The highest number of events that occurred within any second. */
function peak(times) {
  times.sort((a, b) => a - b);
  let [most, first] = [0, 0];
  for (let at = 0; at < times.length; at += 1) {
    while (times[at] - times[first] >= 1000) first += 1;
    most = Math.max(most, at - first + 1);
  }
  return most;
}

const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

async function measure(kind) {
  const fleet = await Fleet.start(kind);
  const crowd = new Crowd(fleet.url);
  const restarts = [];
  try {
    await crowd.everybody();
    fleet.tick();
    await sleep(CALM);
    for (let at = 0; at < fleet.nodes.length; at += 1) {
      await crowd.ask('phase');
      const there = await fleet.count(at);
      const began = Date.now();
      const { took, code } = await fleet.restart(at);
      const counts = await crowd.everybody();
      const back = Date.now() - began;
      // Clients that move because the node returned do so within this time.
      await sleep(CALM);
      await crowd.everybody();
      const phases = await crowd.ask('phase');
      const absences = phases.flatMap(({ absences }) => absences).sort((a, b) => a - b);
      const reasons = {};
      for (const phase of phases) {
        for (const [reason, count] of Object.entries(phase.reasons)) reasons[reason] = (reasons[reason] ?? 0) + count;
      }
      const closed = Object.values(reasons).reduce((sum, count) => sum + count, 0);
      const total = (what) => phases.reduce((sum, phase) => sum + phase[what], 0);
      restarts.push({
        there,
        recovered: total('recovered'),
        anew: total('anew'),
        missed: total('missed'),
        repeated: total('repeated'),
        code,
        leave_ms: took,
        everybody_back_ms: back,
        peak_connections_per_second: peak(phases.flatMap(({ connects }) => connects)),
        absence_ms: { median: quantile(absences, 0.5), p99: quantile(absences, 0.99), longest: absences.at(-1) ?? 0 },
        reasons,
        told_to_stay_away: counts.reduce((sum, { inactive }) => sum + inactive, 0),
        closed_more_than_once_or_elsewhere: closed - there,
      });
      console.log(kind, JSON.stringify(restarts.at(-1)));
    }
  } finally {
    crowd.end();
    await fleet.stop();
  }
  return restarts;
}

const wanted = process.argv.slice(2);
const kinds = Object.keys(FLEETS).filter((kind) => !wanted.length || wanted.some((part) => kind.includes(part)));
const build = process.env.BENCH_BUILD ?? 'a release build';
const load = os.loadavg()[0];
const results = { clients: CLIENTS, build, load, cpus: os.cpus().length, cpu: os.cpus()[0].model, node: process.version, fleets: {} };
for (const kind of kinds) results.fleets[kind] = await measure(kind);
const folder = join(here, '../results');
writeFileSync(join(folder, 'restart.json'), `${JSON.stringify(results, null, 1)}\n`);
writeFileSync(join(folder, 'restart.md'), table(results));
console.log(readFileSync(join(folder, 'restart.md'), 'utf8'));
