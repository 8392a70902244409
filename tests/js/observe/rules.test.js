// Tests of the alert rules: every alert fires when it should, does not fire when it should not, and has its section in
// the runbook.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../harness/node.js';
import { temporary } from '../harness/process.js';
import { CASES, NODE } from './cases.js';
import { dashboards, FOLDER, written } from './dashboards.js';
import { promtool, RULES } from './prometheus.js';

const MANUAL = readFileSync(join(ROOT, 'docs/runbook.md'), 'utf8');

/** All alerts of the file: name, labels, annotations. The file has a fixed format, so it can be parsed line by line. */
const ALERTS = readFileSync(RULES, 'utf8').split('- alert: ').slice(1).map((text) => {
  const line = (key) => new RegExp(`^ *${key}: "?(.*?)"?$`, 'm').exec(text)?.[1];
  return {
    name: /^\w+/.exec(text)[0],
    severity: /severity: (\w+)/.exec(text)[1],
    annotations: { summary: line('summary'), description: line('description'), runbook_url: line('runbook_url') },
  };
});

test('promtool finds nothing to say against the rules', () => {
  assert.match(promtool(['check', 'rules', RULES]), /SUCCESS/);
});

test('every alert is tried, and nothing else is', () => {
  assert.deepEqual(Object.keys(CASES).sort(), ALERTS.map(({ name }) => name).sort());
});

/** Replaces `{{ $labels.x }}` as Prometheus does. */
const expand = (text, labels) => text.replace(/\{\{ \$labels\.(\w+) \}\}/g, (_, name) => labels[name] ?? '');

function unit({ name, severity, annotations }) {
  const { fires, quiet, at, labels = NODE } = CASES[name];
  const series = (given) => Object.entries(given).map(([series, values]) => ({ series, values }));
  const filled = Object.fromEntries(Object.entries(annotations).map(([key, text]) => [key, expand(text, labels)]));
  const expected = [{ exp_labels: { severity, ...labels }, exp_annotations: filled }];
  const tried = (given, exp_alerts) => ({
    interval: '1m',
    input_series: series(given),
    alert_rule_test: [{ eval_time: at, alertname: name, exp_alerts }],
  });
  return [tried(fires, expected), tried(quiet, [])];
}

for (const alert of ALERTS) {
  test(`${alert.name} fires when it should and does not when it should not`, () => {
    const file = join(temporary('rules'), 'test.yaml');
    writeFileSync(file, JSON.stringify({ rule_files: [RULES], evaluation_interval: '1m', tests: unit(alert) }));
    promtool(['test', 'rules', file]);
  });
}

test('every alert has its section of the runbook, and every section its alert', () => {
  const sections = [...MANUAL.matchAll(/^## (Roomcast\w+)$/gm)].map(([, name]) => name);
  assert.deepEqual([...sections].sort(), ALERTS.map(({ name }) => name).sort());
  for (const { name, annotations } of ALERTS) {
    assert.equal(annotations.runbook_url, `docs/runbook.md#${name.toLowerCase()}`);
    const section = MANUAL.split(`\n## ${name}\n`)[1].split('\n## ')[0];
    for (const part of ['Meaning', 'See', 'Causes', 'Do']) assert.match(section, new RegExp(`^\\*\\*${part}\\.\\*\\* `, 'm'), name);
  }
});

test('every metric that rules, dashboards and the runbook name is one of the node', () => {
  const page = readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8');
  const texts = [readFileSync(RULES, 'utf8'), MANUAL, ...Object.values(dashboards).map((found) => JSON.stringify(found))];
  const recorded = /^(job|instance):/;
  for (const [name] of texts.join('\n').matchAll(/\b(job:|instance:)?(roomcast|process)_\w+/g)) {
    const metric = name.replace(/_(bucket|count|sum)$/, '');
    if (!recorded.test(name) && metric !== 'roomcast_events_') assert.ok(page.includes(`\`${metric}\``), name);
  }
});

test('every metric of the node is on a dashboard', () => {
  // No dashboard shows virtual memory, because it is not the memory that a node uses.
  const left = ['process_virtual_memory_bytes'];
  const page = readFileSync(join(ROOT, 'docs/metrics.md'), 'utf8');
  const shown = Object.values(dashboards).flatMap(({ panels }) => panels).flatMap(({ targets = [] }) => targets).map(({ expr }) => expr).join('\n');
  const metrics = [...page.matchAll(/^\| `(\w+)` \|/gm)].map(([, name]) => name);
  assert.ok(metrics.length > 100);
  assert.deepEqual(metrics.filter((name) => !new RegExp(`\\b${name}(_bucket)?\\b`).test(shown)), left);
});

test('every panel that the runbook names is on a dashboard', () => {
  const titles = new Set(Object.values(dashboards).flatMap(({ panels }) => panels.map(({ title }) => title)));
  const named = [...MANUAL.replaceAll('**', '').matchAll(/\*([A-Z][^*]+)\*/g)].map(([, name]) => name.replaceAll('\n', ' '));
  assert.ok(named.length > 30);
  assert.deepEqual(named.filter((name) => !titles.has(name)), []);
});

test('dashboards are as they are written, and have what Grafana needs', () => {
  for (const [name, dashboard] of Object.entries(dashboards)) {
    assert.equal(readFileSync(join(FOLDER, name), 'utf8'), written(name), `run scripts/observe --write`);
    const ids = dashboard.panels.map(({ id }) => id);
    assert.equal(new Set(ids).size, ids.length);
    const areas = dashboard.panels.map(({ gridPos: { x, y, w, h } }) => [x, y, x + w, y + h]);
    for (const [at, [left, top, right, bottom]] of areas.entries()) {
      const over = areas.slice(at + 1).find(([l, t, r, b]) => l < right && left < r && t < bottom && top < b);
      assert.equal(over, undefined, `${name}: ${dashboard.panels[at].title} lies over another`);
    }
    for (const { type, gridPos } of dashboard.panels) assert.equal(type === 'row', gridPos.w === 24 && gridPos.h === 1);
    for (const panel of dashboard.panels.filter(({ type }) => type !== 'row')) {
      assert.ok(panel.description, `${name}: ${panel.title}`);
      assert.ok(panel.type === 'table' || panel.fieldConfig.defaults.unit, `${name}: ${panel.title}`);
      assert.ok(panel.gridPos.x + panel.gridPos.w <= 24, `${name}: ${panel.title}`);
      for (const target of panel.targets) assert.equal(target.datasource.uid, '${datasource}');
    }
  }
});
