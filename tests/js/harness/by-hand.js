// Helpers that speak Engine.IO 4 request by request: polling sessions, and WebSockets that probe an upgrade of a
// session.
import assert from 'node:assert/strict';
import { WebSocket } from 'ws';
import { eventually } from './eventually.js';
import { token } from './token.js';
import { ENGINE } from './world.js';

/** Returns the helpers for one node. */
export function byHand(node) {
  const path = '/socket.io/?EIO=4&transport=';
  const open = new Set();

  const get = async (url, init) => {
    const response = await fetch(node.url + url, init);
    return { status: response.status, text: await response.text(), headers: response.headers };
  };
  const post = async (url, body, headers) => await get(url, { method: 'POST', body, headers });

  /** Opens a polling session. Returns its URL, and the contents of the open packet. */
  async function session() {
    const { status, text } = await get(`${path}polling`);
    assert.equal(status, 200);
    const said = JSON.parse(text.slice(1));
    return { ...said, url: `${path}polling&sid=${said.sid}`, socket: `${path}websocket&sid=${said.sid}` };
  }

  /** Polls until a packet with the prefix `wanted` arrives. Answers heartbeats. */
  async function fetchPacket(made, wanted) {
    const { url } = made;
    for (;;) {
      const { status, text } = await get(url);
      assert.equal(status, 200, text);
      const packets = text.split('\x1e');
      if (packets.includes('2')) {
        made.pinged = true;
        await post(url, '3');
      }
      const found = packets.find((packet) => packet.startsWith(wanted));
      if (found !== undefined) return found;
    }
  }

  /** Opens a session that is connected to `/`; `id` is the session's Socket.IO id. */
  async function connected(user = 'ada') {
    const made = await session();
    assert.equal((await post(made.url, `40${JSON.stringify({ token: token({ sub: user }) })}`)).text, 'ok');
    const { sid: id } = JSON.parse((await fetchPacket(made, '40{"sid"')).slice(2));
    // The library sends its first ping about 1 ms after the handshake. Take it now, so that it answers no later poll.
    if (ENGINE === 'socketioxide' && !made.pinged) await fetchPacket(made, '2');
    return { ...made, id };
  }

  /** Opens a WebSocket that collects the messages in `got`. `gone` is true once the WebSocket has closed. */
  async function websocket(url) {
    const socket = new WebSocket(node.url.replace('http', 'ws') + url);
    open.add(socket);
    socket.got = [];
    socket.on('message', (data, binary) => socket.got.push(binary ? data : data.toString())).on('error', () => {});
    socket.on('close', () => (socket.gone = true));
    await eventually('the WebSocket opens or is refused', () => socket.readyState === WebSocket.OPEN || socket.gone);
    return socket;
  }

  const comes = async (socket, wanted) =>
    await eventually(`${wanted} comes`, () => socket.got.find((packet) => packet.startsWith(wanted)));

  /** Opens a WebSocket for the upgrade of a session, and waits for the answer to the probe. */
  async function probed(made) {
    const socket = await websocket(made.socket);
    socket.send('2probe');
    assert.equal(await comes(socket, '3probe'), '3probe');
    return socket;
  }

  function terminateAll() {
    open.forEach((socket) => socket.terminate());
    open.clear();
  }

  return { path, get, post, session, fetchPacket, connected, websocket, comes, probed, terminateAll };
}
