"""A TCP proxy whose buffers are small: what a client does not read soon waits in the node. Prints its port."""

import asyncio
import socket
import sys

BUFFER = 4096
PIECE = 2048


def narrow(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


async def copy(reader, writer):
    try:
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def main(host, port):
    async def serve(reader, writer):
        upstream = narrow(socket.socket())
        upstream.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(upstream, (host, port))
        except OSError:
            writer.close()
            return
        # The buffers of the streams are small, too.
        there, back = await asyncio.open_connection(sock=upstream, limit=PIECE)
        for side in (writer, back):
            side.transport.set_write_buffer_limits(high=PIECE)
        await asyncio.gather(copy(reader, back), copy(there, writer))
        for side in (writer, back):
            side.close()

    listener = narrow(socket.socket())
    listener.bind(("127.0.0.1", 0))
    server = await asyncio.start_server(serve, sock=listener, limit=PIECE)
    print('{"port":%d}' % listener.getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
