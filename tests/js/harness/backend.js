// A backend that the node calls. The backend checks the signature and format of every request, and answers as the test
// says.
import { createHmac, timingSafeEqual } from 'node:crypto';
import http from 'node:http';
import { eventually } from './eventually.js';

export const HOOK_SECRET = 'a-hook-secret-of-the-tests-0123456789';

export class Backend {
  /**
   * `answer(event, request)` returns { status, body }, or only a body, or { raw } with the text of the body. A test may
   * replace this function at any time.
   */
  static async start(answer = () => ({ ok: true })) {
    const backend = new Backend();
    backend.answer = answer;
    backend.requests = [];
    backend.faults = [];
    backend.underWay = 0;
    backend.most = 0;
    backend.server = http.createServer((request, response) => backend.take(request, response));
    await new Promise((resolve) => backend.server.listen(0, '127.0.0.1', resolve));
    backend.port = backend.server.address().port;
    return backend;
  }

  /** The hook's section in the node's configuration. */
  toml(name, more = '') {
    return `[hooks.${name}]\nurl = "http://127.0.0.1:${this.port}/hooks/${name}"\nsecret = "${HOOK_SECRET}"\n${more}`;
  }

  async stop() {
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  /** Listens on the backend's port again. */
  async up() {
    await new Promise((resolve) => this.server.listen(this.port, '127.0.0.1', resolve));
  }

  /** The CloudEvents of a type that were received. */
  of(type) {
    return this.requests.map(({ event }) => event).filter((event) => event.type === `io.roomcast.${type}`);
  }

  /** Waits until this number of CloudEvents of a type were received, and returns them. */
  async expect(type, count = 1) {
    return await eventually(`${count} × ${type}`, () => this.of(type).length >= count && this.of(type));
  }

  async take(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const fault = wrong(request, body);
    if (fault) {
      this.faults.push(fault);
      response.writeHead(400).end();
      return;
    }
    const event = JSON.parse(body);
    this.requests.push({ event, raw: body.toString(), headers: request.headers, at: Date.now() });
    this.underWay += 1;
    this.most = Math.max(this.most, this.underWay);
    try {
      const { status = 200, body: answer, raw, ...rest } = (await this.answer(event, request)) ?? {};
      const shown = answer ?? rest;
      response.writeHead(status, { 'content-type': 'application/json' }).end(raw ?? JSON.stringify(shown));
    } finally {
      this.underWay -= 1;
    }
  }
}

/** The mistake of a request, if there is one: in the format of the CloudEvent, the signature, or the age. */
function wrong(request, body) {
  if (request.method !== 'POST') return `method ${request.method}`;
  if (!request.headers['content-type']?.startsWith('application/cloudevents+json')) return 'content-type';
  const [, at, list] = /^t=(\d+),(.*)$/.exec(request.headers['roomcast-signature'] ?? '') ?? [];
  if (!at || Math.abs(Date.now() / 1000 - Number(at)) > 60) return 'no signature, or an old one';
  const mine = createHmac('sha256', HOOK_SECRET).update(`${at}.`).update(body).digest();
  const theirs = list.split(',').map((part) => Buffer.from(part.replace('v1=', ''), 'hex'));
  if (!theirs.some((other) => other.length === mine.length && timingSafeEqual(other, mine))) return 'a wrong signature';
  const event = JSON.parse(body);
  const missing = ['id', 'source', 'type', 'time'].filter((member) => !event[member]);
  if (event.specversion !== '1.0' || missing.length) return `not a CloudEvent: ${missing}`;
  if (request.headers['roomcast-id'] !== event.id) return 'the id of the header is another';
  if (!/^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(event.traceparent ?? '')) return 'no trace context';
  return undefined;
}
