// Extracts the queries of dashboards and rules, with Grafana's variables replaced, so that Prometheus can run them.

/** The values for Grafana's variables: each matches everything. */
const VARIABLES = { job: '.*', instance: '.*', contract: '.*', event: '.*' };
const INTERVAL = '10s';

export function filled(expr) {
  const known = expr.replaceAll('$__rate_interval', INTERVAL);
  return known.replace(/\$(\w+)/g, (whole, name) => {
    if (!(name in VARIABLES)) throw new Error(`unknown variable ${whole}: ${expr}`);
    return VARIABLES[name];
  });
}

/** All queries of a dashboard: [where, expression]. */
export const queriesOf = (dashboard) =>
  dashboard.panels.flatMap((panel) => (panel.targets ?? []).map(({ expr, refId }) => [`${panel.title} ${refId}`, filled(expr)]));

/** The variables of a dashboard that list a label's values: [name, label, series]. */
export const variablesOf = (dashboard) =>
  dashboard.templating.list
    .filter(({ type }) => type === 'query')
    .map(({ name, query }) => {
      const [, series, label] = /^label_values\((.*), (\w+)\)$/.exec(query.query);
      return [name, label, filled(series)];
    });

/** The expression that an alert compares with a number. */
export function compared(expr) {
  const [, left] = /^([\s\S]*\S)\s*(?:>|<|==)\s*[\d.]+$/.exec(expr) ?? [];
  if (!left) throw new Error(`does not compare with a number: ${expr}`);
  return left;
}
