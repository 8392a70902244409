// The pages of the site, in the order of its navigation. docs/README.md has the same groups, by reader.
const group = (text, pages) => ({ text, items: Object.entries(pages).map(([page, text]) => ({ text, page })) });

const groups = [
  group('Overview', { 'README.md': 'What roomcast is', 'docs/README.md': 'All pages by reader', 'CHANGELOG.md': 'Changelog' }),
  group('Application developers', {
    'docs/contracts.md': 'Contracts',
    'docs/from-code-to-contract.md': 'From code to contract',
    'contracts/gallery/README.md': 'Gallery of contracts',
    'docs/authentication.md': 'Authentication',
    'docs/history.md': 'History and replay',
    'docs/recovery.md': 'Connection state recovery',
    'docs/presence.md': 'Presence',
    'docs/limits.md': 'Limits',
  }),
  group('Backend developers', {
    'docs/api.md': 'HTTP API',
    'docs/hooks.md': 'Hooks',
    'docs/emitter.md': 'Emitters and other servers',
  }),
  group('Operators', {
    'docs/operations.md': 'Sizing and operation',
    'docs/configuration.md': 'Settings',
    'docs/kubernetes.md': 'Kubernetes',
    'charts/roomcast/README.md': 'Values of the chart',
    'k8s/README.md': 'kustomize',
    'nginx/README.md': 'nginx',
    'docs/sticky-sessions.md': 'Sticky sessions',
    'docs/redis.md': 'Redis',
    'docs/versions.md': 'Versions of formats',
    'docs/drain.md': 'Draining',
    'docs/doctor.md': 'Doctor',
    'docs/metrics.md': 'Metrics',
    'docs/runbook.md': 'Runbook',
    'docs/tracing.md': 'Logs and traces',
    'docs/audit.md': 'Audit log',
    'docs/security.md': 'Security',
  }),
  group('Contributors', {
    'CONTRIBUTING.md': 'Contributing',
    'ARCHITECTURE.md': 'Architecture',
    'docs/engines.md': 'Engines',
    'tests/README.md': 'Tests',
    'tests/fuzz/README.md': 'Fuzzing',
    'tests/js/soak/README.md': 'Soak test',
    'benchmarks/README.md': 'Benchmarks',
    'benchmarks/NOTES.md': 'Notes on performance',
    'benchmarks/results/results.md': 'Results',
    'benchmarks/results/restart.md': 'Results of rolling restarts',
  }),
];

export const PAGES = groups.flatMap(({ items }) => items.map(({ page }) => page));

/** The path of a page on the site: a README is the index of its folder. */
export const place = (page) => page.replace(/README\.md$/, 'index.md');

export const sidebar = groups.map(({ text, items }) => ({
  text,
  items: items.map(({ text, page }) => ({ text, link: `/${place(page).replace(/(index)?\.md$/, '')}` })),
}));
