// Starts servers that echo, like the servers of the official protocol test suites: one with the native engine
// (examples/protocol_server.rs) and the official servers.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { binary } from './node.js';
import { line, start, stop } from './process.js';

const OFFICIAL = join(dirname(fileURLToPath(import.meta.url)), 'official-server.js');

/**
 * Starts the native engine's server; returns the addresses of its two listeners. The server ends with the test file.
 */
export async function native(times) {
  const program = join(dirname(binary()), 'examples/protocol_server');
  if (!existsSync(program)) throw new Error(`${program} is missing: run \`cargo build --example protocol_server\` first`);
  return await serve(program, [], times);
}

/** Starts the official servers; returns the addresses of their two listeners. The servers end with the test file. */
export async function official(times) {
  return await serve(process.execPath, [OFFICIAL], times);
}

async function serve(program, args, { pingInterval, pingTimeout, connectTimeout }) {
  const running = start(program, [...args, ...[pingInterval, pingTimeout, connectTimeout].map(String)]);
  after(() => stop(running));
  return await line(running, (text) => text.startsWith('{"engine"') && JSON.parse(text));
}
