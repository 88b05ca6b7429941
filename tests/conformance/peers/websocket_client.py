"""A WebSocket client: ADDRESS LABEL."""

import fcntl
import socket
import struct
import sys
import termios
import threading
import time

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as open_connection

from cells import HUGE, SIZES, cell, content, same, takes_huge

address, label = sys.argv[1:]
MIB = 1 << 20


def connect(**more):
    options = {"max_size": None, "compression": None, "open_timeout": 30, "proxy": None} | more
    return open_connection(f"ws://{address}/", **options)


def echo(length, times=2):
    with connect() as connection:
        for _ in range(times):
            connection.send(content(length))
            assert connection.recv(timeout=90) == content(length), "not what was sent"


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


def server_goes(how):
    """Without the closing handshake: what had come stays, and the end is no proper one."""
    with connect() as connection:
        connection.send(how)
        try:
            while True:
                same(connection.recv(timeout=30), "half of what was to be said")
        except ConnectionClosed as closed:
            same(closed.rcvd, None)
    echo(1)


def slow_writer():
    """A byte of a frame at a time, past the library, which would send it whole."""
    with connect() as connection:
        # Text of 5 bytes, masked with nothing.
        for byte in b"\x81\x85\0\0\0\0hello":
            connection.socket.sendall(bytes([byte]))
        same(connection.recv(timeout=30), "hello")


# One way at a time: with both full, this library waits for itself, also without a proxy (what it sends and what it reads
# share a lock).


def slow_reader():
    """It reads nothing until the way to it is full."""
    with connect(max_queue=1) as connection:
        connection.send(content(MIB))
        assert connection.recv(timeout=60) == content(MIB), "not what was sent"
        connection.send("again")
        settle(connection.socket)
        for _ in range(24):
            assert connection.recv(timeout=60) == content(MIB), "not what was sent"


def settle(waited_for):
    """Until no more comes into the kernel's buffer, which nobody reads."""
    seen, times = -1, 0
    while times < 10:
        count = struct.unpack("i", fcntl.ioctl(waited_for, termios.FIONREAD, bytes(4)))[0]
        seen, times = count, times + 1 if count == seen and count > 0 else 0
        time.sleep(0.05)


def deaf_server():
    """It reads nothing until the way to it is full."""
    with connect() as connection, connect() as other:
        connection.send("deaf")
        same(connection.recv(timeout=30), "deaf")
        writer = threading.Thread(target=lambda: [connection.send(content(MIB)) for _ in range(64)])
        writer.start()
        writer.join(1)
        assert writer.is_alive(), "64 MiB found room between here and there"
        other.send("hear")
        writer.join(60)
        assert not writer.is_alive(), "it does not go on"
        connection.send("heard?")
        same(connection.recv(timeout=60), "64")


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
cell(f"{label} slow writer", slow_writer)
cell(f"{label} slow reader", slow_reader)
cell(f"{label} deaf server", deaf_server)
cell(f"{label} the server closes abruptly", lambda: server_goes("vanish"))
cell(f"{label} the server resets", lambda: server_goes("reset"))
if takes_huge(label):
    cell(f"{label} echo {HUGE}", lambda: echo(HUGE, 1))
cell(f"{label} the client closes abruptly", lambda: abrupt(False))
cell(f"{label} the client resets", lambda: abrupt(True))
