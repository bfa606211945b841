"""What comes in goes out: `echo.py gevent|uvloop echo PORT`."""

import asyncio
import socket
import sys

kind, port = sys.argv[1], int(sys.argv[3])


def with_gevent():
    from gevent.server import StreamServer

    def serve(connection, _address):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := connection.recv(4096):
                connection.sendall(data)
        except OSError:
            pass  # whoever measures has gone

    StreamServer(("127.0.0.1", port), serve, backlog=1024).serve_forever()


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


async def with_asyncio():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if kind == "gevent":
    with_gevent()
else:
    import uvloop

    uvloop.run(with_asyncio())
