"""A WebSocket server: echoes messages; `close` makes it end the conversation."""

import sys

from websockets.sync.server import serve


def talk(connection):
    for message in connection:
        if message == "close":
            connection.close(4001, "as you wish")
            return
        connection.send(message)


with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=None, compression=None) as server:
    server.serve_forever()
