// Starts a Prometheus server for one test, and runs promtool.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { eventually } from '../harness/eventually.js';
import { ROOT } from '../harness/node.js';
import { start, stop, temporary } from '../harness/process.js';
import { freePort } from '../harness/redis.js';

export const RULES = join(ROOT, 'charts/roomcast/files/rules.yaml');

export class Prometheus {
  /** Starts a Prometheus that scrapes the nodes' API listeners and evaluates the rules, both once per second. */
  static async start(nodes) {
    const prometheus = new Prometheus();
    const dir = temporary('prometheus');
    const file = join(dir, 'prometheus.yml');
    const targets = nodes.map((node) => new URL(node.apiUrl).host);
    // The configuration is written as JSON, because every JSON text is valid YAML.
    const config = {
      global: { scrape_interval: '1s', scrape_timeout: '1s', evaluation_interval: '1s' },
      rule_files: [RULES],
      scrape_configs: [{ job_name: 'roomcast', static_configs: [{ targets }] }],
    };
    writeFileSync(file, JSON.stringify(config));
    const port = await freePort();
    prometheus.url = `http://127.0.0.1:${port}`;
    prometheus.process = start('prometheus', [
      `--config.file=${file}`,
      `--storage.tsdb.path=${join(dir, 'data')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ]);
    await eventually('Prometheus is ready', async () => (await fetch(`${prometheus.url}/-/ready`)).ok, 30_000);
    return prometheus;
  }

  async stop() {
    await stop(this.process);
  }

  /** Sends a request to Prometheus' API. Throws Prometheus' error message. */
  async api(path, params = {}) {
    const response = await fetch(`${this.url}/api/v1/${path}?${new URLSearchParams(params)}`);
    const body = await response.json();
    if (body.status !== 'success') throw new Error(`${body.error}: ${JSON.stringify(params)}`);
    return body.data;
  }

  /** The current values of an expression. */
  async now(query) {
    const { result } = await this.api('query', { query });
    return result.map(({ metric, value }) => ({ labels: metric, value: Number(value[1]) }));
  }

  /** All values of an expression in the last seconds. */
  async numbers(query, seconds) {
    const end = Date.now() / 1000;
    const { result } = await this.api('query_range', { query, start: end - seconds, end, step: 1 });
    return result.flatMap(({ values }) => values.map(([, value]) => Number(value))).filter((value) => !Number.isNaN(value));
  }

  /** Every rule, as Prometheus has parsed it. */
  async rules() {
    return (await this.api('rules')).groups.flatMap(({ rules }) => rules);
  }
}

/** Runs promtool and returns its output. Throws if promtool fails. */
export function promtool(args, input) {
  const { status, stdout, stderr, error } = spawnSync('promtool', args, { input, encoding: 'utf8' });
  const said = `${stdout ?? ''}${stderr ?? ''}`;
  if (error || status !== 0) throw new Error(`promtool ${args.join(' ')}: ${error ?? said}`);
  return said;
}
