// Writes the sizes in results/results.json into docs/operations.md, between its two marks. `scripts/bench` runs it at
// its end.
import { readFileSync, writeFileSync } from 'node:fs';

const results = new URL('results/results.json', import.meta.url);
const page = new URL('../docs/operations.md', import.meta.url);
const [BEGIN, END] = ['<!-- sizes: written by benchmarks/sizing.js -->', '<!-- end of sizes -->'];
const ENGINES = ['Native', 'Socketioxide'];

const { machine, runs } = JSON.parse(readFileSync(results, 'utf8'));

/** The median of a figure over all runs, for each engine. */
const medians = (scenario, figure) =>
  ENGINES.map((engine) => {
    const found = runs.filter((run) => run.scenario === scenario && run.peer === engine).map((run) => run.figures[figure]);
    const sorted = found.filter(Number.isFinite).sort((a, b) => a - b);
    if (sorted.length === 0) throw new Error(`results.json has no ${figure} of "${scenario}" for ${engine}`);
    return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
  });

const row = (what, cells) => `| ${[what, ...cells].join(' | ')} |`;
const memory = (what, figure) => row(what, medians('idle', figure).map((kib) => `${Math.round((kib * 10_000) / 1024)} MiB`));
const delivery = (what, scenario) => row(what, medians(scenario, 'delivery_us').map((us) => `${us.toFixed(1)} µs`));
const SMALL = '200 rooms of 10, 2,000/s';
const shares = medians(SMALL, 'delivery_us').map((us) => `${Math.round(us * 2)} %`);

const lines = [
  BEGIN,
  row('for each 10,000 clients', ['native engine (WebSocket)', 'socketioxide']),
  '| --- | --- | --- |',
  memory('memory, idle', 'idle_kib'),
  memory('memory, after traffic', 'after_64_packets_kib'),
  memory('memory, after a reconnect of all', 'after_return_kib'),
  row('processor to connect them all', medians('idle', 'connect_us').map((us) => `${(us / 100).toFixed(1)} s`)),
  row('open files', ['10,000', '10,000']),
  '',
  row('a delivery to one client costs', ['native', 'socketioxide']),
  '| --- | --- | --- |',
  delivery('rooms of 1,000, 50 events/s', 'room of 1,000, 50/s'),
  delivery('rooms of 10, 2,000 events/s', SMALL),
  delivery('rooms of 1,000, as much as goes', 'room of 1,000, saturated'),
  '',
  `20,000 deliveries a second into small rooms take ${shares[0]} of a processor (socketioxide: ${shares[1]}). Medians of ${machine.date}, ${machine.processors}.`,
  END,
];

const text = readFileSync(page, 'utf8');
const [from, to] = [text.indexOf(BEGIN), text.indexOf(END)];
if (from < 0 || to < from) throw new Error(`${page.pathname} has no place for sizes`);
writeFileSync(page, text.slice(0, from) + lines.join('\n') + text.slice(to + END.length));
