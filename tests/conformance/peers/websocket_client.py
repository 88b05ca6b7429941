"""A WebSocket client: ADDRESS LABEL."""

import socket
import struct
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as open_connection

from cells import HUGE, SIZES, cell, content, same

address, label = sys.argv[1:]


def connect(**more):
    options = {"max_size": None, "compression": None, "open_timeout": 30, "proxy": None} | more
    return open_connection(f"ws://{address}/", **options)


def echo(length):
    with connect() as connection:
        for _ in range(2):
            connection.send(content(length))
            same(connection.recv(timeout=90), content(length))


def many():
    with connect() as connection:
        for number in range(500):
            connection.send(f"message {number}")
        for number in range(500):
            same(connection.recv(timeout=30), f"message {number}")


def fragments():
    with connect() as connection:
        connection.send(iter([b"one", b"two", content(70_000)]))
        same(connection.recv(timeout=30), b"onetwo" + content(70_000))


def ping():
    with connect() as connection:
        assert connection.ping().wait(30), "no pong"


def server_closes():
    with connect() as connection:
        connection.send("close")
        try:
            connection.recv(timeout=30)
        except ConnectionClosed as closed:
            same((closed.rcvd.code, closed.rcvd.reason), (4001, "as you wish"))
        else:
            raise AssertionError("it goes on")


def abrupt(reset):
    connection = connect()
    connection.send(content(1 << 20))
    if reset:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.socket.shutdown(socket.SHUT_RDWR) if not reset else connection.socket.close()
    echo(1)


def compressed():
    with connect(compression="deflate") as connection:
        connection.send("a" * 100_000)
        same(connection.recv(timeout=30), "a" * 100_000)


for size in SIZES:
    cell(f"{label} echo {size}", lambda: echo(size))
cell(f"{label} 500 messages at once", many)
cell(f"{label} fragments", fragments)
cell(f"{label} ping", ping)
cell(f"{label} an extension offered", compressed)
cell(f"{label} the server closes with a code", server_closes)
cell(f"{label} the client closes abruptly", lambda: abrupt(False))
cell(f"{label} the client resets", lambda: abrupt(True))
