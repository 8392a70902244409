// The dashboards follow Grafana's own schema. Grafana itself does not run here.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import ts from 'typescript';
import { ROOT } from '../harness/node.js';
import { temporary } from '../harness/process.js';
import { dashboards } from './dashboards.js';

const OPTIONS = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  types: [],
  target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.ESNext,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  paths: { '@grafana/schema': [join(ROOT, 'tests/js/node_modules/@grafana/schema/dist/types/index.d.ts')] },
};

/**
 * The dashboard as a TypeScript literal that the compiler can check: without the queries of annotations, which each
 * data source defines for itself, and with members of an enumeration instead of strings.
 */
function literal(dashboard) {
  const list = dashboard.annotations.list.map(({ target, titleFormat, textFormat, ...rest }) => {
    assert.ok(target.expr && titleFormat && textFormat);
    return rest;
  });
  return JSON.stringify({ ...dashboard, annotations: { list } }).replaceAll('"mode":"absolute"', '"mode":ThresholdsMode.Absolute');
}

function mistakes(text) {
  const file = join(temporary('grafana'), 'dashboards.ts');
  writeFileSync(file, text);
  const program = ts.createProgram([file], OPTIONS);
  return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}

const HEAD = "import { type Dashboard, ThresholdsMode } from '@grafana/schema';\n";

test('every dashboard is of the type that Grafana publishes', () => {
  const lines = Object.values(dashboards).map((dashboard, at) => `export const d${at}: Dashboard = ${literal(dashboard)};\n`);
  assert.deepEqual(mistakes(HEAD + lines.join('')), []);
});

test('a dashboard with a mistake would be seen', () => {
  const wrong = literal(dashboards['fleet.json']).replace('"refresh"', '"refrehs"');
  const found = mistakes(`${HEAD}export const t = ThresholdsMode.Absolute;\nexport const d: Dashboard = ${wrong};\n`);
  assert.match(found.join(), /refrehs/);
});
