// A short soak; see README.md.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENGINE } from '../harness/world.js';
import { Soak } from './soak.js';

const SECONDS = 7;

test('mixed traffic: every event of every client, in order, whole, and no drop that is not counted', async () => {
  const soak = new Soak({ engines: [ENGINE, 'native'] });
  const failures = await soak.run(SECONDS);
  console.log(JSON.stringify(soak.count));
  assert.deepEqual(failures, []);
  assert.ok(soak.count.events > 500 && soak.count.floods > 0, JSON.stringify(soak.count));
});
