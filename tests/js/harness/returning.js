// Helpers to break the connection of an official client and to connect the client again.
import { Client } from './client.js';
import { eventually } from './eventually.js';

/**
 * Ends the transport, as a lost network does; the server notices at once. Do not use it while the client upgrades: a
 * client whose connection closes then treats the events of its last poll as events of its next connection, and has them
 * twice.
 */
export async function cut(client) {
  // The client closes only when its buffered packets are sent, and could begin to upgrade until that moment.
  const idle = ({ upgrading, writeBuffer }) => !upgrading && writeBuffer.length === 0;
  await eventually('no upgrade is under way', () => idle(client.socket.io.engine));
  client.disconnected = undefined;
  client.socket.io.engine.close();
  await client.ended();
}

/** Makes the client treat its connection as lost, without the server's knowledge. Returns a function that really closes it. */
export async function vanish(client) {
  client.disconnected = undefined;
  const { engine } = client.socket.io;
  const { ws } = engine.transport;
  engine.transport.close = () => {};
  engine.transport.removeAllListeners();
  ws.onmessage = ws.onclose = ws.onerror = () => {};
  engine._onClose('ping timeout');
  await client.ended();
  return () => ws.terminate();
}

/** Connects the same client again, to any node. */
export async function comeBack(client, node = client.node) {
  client.node = node;
  client.socket.io.uri = node.url;
  client.socket.connect();
  await client.connected();
  return client.socket.recovered;
}

/** The credentials that a client sends to be recovered: its secret and the last offset string. */
export function credentials(client) {
  return { pid: client.socket._pid, offset: client.socket._lastOffset };
}

/** Connects a client that uses another client's secret and offset string. */
export async function impostor(node, { pid, offset }, options) {
  const client = new Client(node, { ...options, autoConnect: false });
  client.socket._pid = pid;
  client.socket._lastOffset = offset;
  client.socket.connect();
  await client.connected();
  return client;
}

/** The member `n` of all events with this name, in order of arrival. */
export function numbers(events, name = 'entry') {
  return events.filter(([event]) => event === name).map(([, { n }]) => n);
}

export function range(from, to) {
  return Array.from({ length: to - from + 1 }, (_, at) => from + at);
}

/** Waits until a client has received this number of events of a name, and returns their numbers. */
export async function had(client, count, name = 'entry') {
  return await eventually(`${count} × ${name}`, () => {
    const got = numbers(client.inbox, name);
    return got.length >= count && got;
  });
}
