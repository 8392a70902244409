// Builds the parts of dashboards, in Grafana's format.

const DATASOURCE = { type: 'prometheus', uid: '${datasource}' };
const WIDTH = 24;

/** A panel with a graph over time. `queries` are [expression, legend]. */
export const graph = (title, description, unit, queries, more = {}) => ({
  type: 'timeseries',
  title,
  description,
  datasource: DATASOURCE,
  width: 8,
  height: 8,
  fieldConfig: {
    defaults: {
      unit,
      ...(unit === 'percentunit' ? { max: more.max ?? 1 } : {}),
      min: 0,
      custom: { drawStyle: 'line', fillOpacity: 8, showPoints: 'never', stacking: { mode: more.stack ? 'normal' : 'none' } },
      links: more.links ?? [],
    },
    overrides: [],
  },
  options: {
    legend: { displayMode: 'table', placement: 'bottom', calcs: ['lastNotNull', 'max'], showLegend: true },
    tooltip: { mode: 'multi', sort: 'desc' },
  },
  targets: targets(queries),
});

/** A panel that shows the current value as one number. `steps` give its colour: [[from, colour], …]. */
export const stat = (title, description, unit, query, steps = [[null, 'green']]) => ({
  type: 'stat',
  title,
  description,
  datasource: DATASOURCE,
  width: 4,
  height: 4,
  fieldConfig: {
    defaults: {
      unit,
      thresholds: { mode: 'absolute', steps: steps.map(([value, color]) => ({ value, color })) },
    },
    overrides: [],
  },
  options: { reduceOptions: { calcs: ['lastNotNull'] }, colorMode: 'value', graphMode: 'area', textMode: 'auto' },
  targets: targets([[query, '']]),
});

/** A panel that shows the current values as a table, with one line per series. */
export const table = (title, description, query, hidden = []) => ({
  type: 'table',
  title,
  description,
  datasource: DATASOURCE,
  width: 12,
  height: 8,
  fieldConfig: { defaults: {}, overrides: [] },
  options: { showHeader: true },
  targets: [{ ...targets([[query, '']])[0], instant: true, range: false, format: 'table' }],
  transformations: [
    { id: 'organize', options: { excludeByName: Object.fromEntries(['Time', '__name__', ...hidden].map((name) => [name, true])) } },
  ],
});

/** A heading between panels. */
export const row = (title) => ({ type: 'row', title, collapsed: false, panels: [], width: WIDTH, height: 1 });

/** A variable that lists a label's values. */
export const variable = (name, label, query, description) => ({
  type: 'query',
  name,
  label,
  description,
  datasource: DATASOURCE,
  query: { qryType: 1, query, refId: `${name}Variable` },
  refresh: 2,
  includeAll: true,
  allValue: '.*',
  multi: true,
  current: { selected: true, text: ['All'], value: ['$__all'] },
  sort: 1,
});

/** A dashboard. Panels are placed from left to right. */
export function dashboard({ uid, title, description, variables, panels }) {
  return {
    uid,
    title,
    description,
    tags: ['roomcast'],
    schemaVersion: 39,
    editable: true,
    graphTooltip: 1,
    refresh: '30s',
    time: { from: 'now-1h', to: 'now' },
    timezone: 'browser',
    annotations: { list: [alerts] },
    links: [
      { type: 'dashboards', title: 'roomcast', tags: ['roomcast'], asDropdown: false, includeVars: true, keepTime: true, icon: 'external link', targetBlank: false, tooltip: 'The other dashboards', url: '' },
    ],
    templating: { list: [source, ...variables] },
    panels: placed(panels),
  };
}

const source = {
  type: 'datasource',
  name: 'datasource',
  label: 'Prometheus',
  query: 'prometheus',
  refresh: 1,
  current: { selected: false, text: 'default', value: 'default' },
};

const alerts = {
  name: 'Alerts',
  datasource: DATASOURCE,
  enable: true,
  iconColor: 'red',
  target: { refId: 'Anno', datasource: DATASOURCE, expr: 'ALERTS{alertname=~"Roomcast.*", alertstate="firing"}' },
  titleFormat: '{{alertname}}',
  textFormat: '{{instance}}',
};

const targets = (queries) =>
  queries.map(([expr, legendFormat], at) => ({
    refId: String.fromCharCode(65 + at),
    datasource: DATASOURCE,
    expr,
    legendFormat,
    range: true,
  }));

function placed(panels) {
  let [x, y, height] = [0, 0, 0];
  return panels.map(({ width, height: tall, ...panel }, at) => {
    if (x + width > WIDTH) [x, y, height] = [0, y + height, 0];
    const gridPos = { x, y, w: width, h: tall };
    x += width;
    height = Math.max(height, tall);
    return { id: at + 1, ...panel, gridPos };
  });
}
