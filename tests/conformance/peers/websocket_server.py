"""A WebSocket server: echoes messages; `close` makes it end the conversation, `vanish` and `reset` its connection.
`again` makes it say the message before 24 times; `deaf` makes it read nothing until somebody says `hear` on another
connection, and then count messages until `heard?`."""

import socket
import struct
import sys
import threading

from websockets.sync.server import serve


hearing = threading.Event()


def talk(connection):
    last = None
    for message in connection:
        if message == "again":
            for _ in range(24):
                connection.send(last)
            continue
        if message == "deaf":
            be_deaf(connection)
            continue
        if message == "hear":
            hearing.set()
        last = message
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


def be_deaf(connection):
    hearing.clear()
    connection.send("deaf")
    hearing.wait(60)
    heard = 0
    for message in connection:
        if message == "heard?":
            connection.send(str(heard))
            return
        heard += 1


with serve(talk, "127.0.0.1", int(sys.argv[1]), max_size=None, compression=None) as server:
    server.serve_forever()
