"""A WebSocket server: echoes messages; `close` makes it end the conversation, `vanish` and `reset` its connection."""

import socket
import struct
import sys

from websockets.sync.server import serve


def talk(connection):
    for message in connection:
        if message == "close":
            connection.close(4001, "as you wish")
            return
        if message in ("vanish", "reset"):
            if message == "reset":
                connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.send("half of what was to be said")
            connection.close_socket()
            return
        connection.send(message)


with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=None, compression=None) as server:
    server.serve_forever()
