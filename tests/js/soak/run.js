// A long soak: SOAK_SECONDS (600), SOAK_WALKERS (24), SOAK_SEED. Each pair of engines runs for a third of the time, or
// the pair in SOAK_ENGINES for all of it.
import { Soak } from './soak.js';

const seconds = Number(process.env.SOAK_SECONDS ?? 600);
const walkers = Number(process.env.SOAK_WALKERS ?? 24);
const seed = Number(process.env.SOAK_SEED ?? Date.now() % 1_000_000);
const PAIRS = process.env.SOAK_ENGINES
  ? [process.env.SOAK_ENGINES.split(',')]
  : [
      ['native', 'native'],
      ['native', 'socketioxide'],
      ['socketioxide', 'socketioxide'],
    ];

console.log(`soak: ${seconds} s, ${walkers} clients, seed ${seed}`);
for (const [at, engines] of PAIRS.entries()) {
  const soak = new Soak({ engines, walkers, seed: seed + at });
  const failures = await soak.run(seconds / PAIRS.length);
  console.log(`${engines.join(' and ')}: ${JSON.stringify(soak.count)}`);
  if (failures.length) {
    console.log(failures.join('\n'));
    process.exitCode = 1;
  }
}
