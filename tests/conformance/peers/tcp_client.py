"""Plain sockets: ADDRESS LABEL."""

import hashlib
import socket
import struct
import sys
import threading

from cells import HUGE, SIZES, cell, content, digest, pieces, same, takes_huge

address, label = sys.argv[1:]
host, port = address.split(":")


def connect():
    stream = socket.create_connection((host, int(port)), timeout=60)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def there_and_back(length):
    """All there, our end is closed, and then all back: the other way must outlive the first."""
    with connect() as stream:
        stream.sendall(b"h")
        for piece in pieces(length):
            stream.sendall(piece)
        stream.shutdown(socket.SHUT_WR)
        found = b""
        while len(found) < 64:
            data = stream.recv(64 - len(found))
            assert data, "the end before the hash"
            found += data
        same(found.decode(), digest(length))
        state = hashlib.sha256()
        while data := stream.recv(1 << 16):
            state.update(data)
        same(state.hexdigest(), digest(length))


def echo(length, step):
    with connect() as stream:
        def write():
            stream.sendall(b"e")
            body = content(length)
            for at in range(0, length, step):
                stream.sendall(body[at : at + step])
            stream.shutdown(socket.SHUT_WR)

        writer = threading.Thread(target=write)
        writer.start()
        state, total = hashlib.sha256(), 0
        while data := stream.recv(1 << 16):
            state.update(data)
            total += len(data)
        writer.join()
        same((total, state.hexdigest()), (length, digest(length)))


def full_before_read(length):
    """Nobody reads until both ways are full: nothing is lost, and nothing grows without bound."""
    with connect() as stream:
        stream.sendall(b"e")
        stream.setblocking(False)
        sent, body = 0, content(length)
        idle = 0
        while sent < length and idle < 50:
            try:
                sent += stream.send(body[sent : sent + 65536])
                idle = 0
            except BlockingIOError:
                idle += 1
                threading.Event().wait(0.01)
        stream.setblocking(True)
        stream.settimeout(60)
        state, left = hashlib.sha256(), sent
        while left > 0:
            data = stream.recv(1 << 16)
            assert data, f"{left} bytes are missing"
            state.update(data)
            left -= len(data)
        same(state.hexdigest(), hashlib.sha256(body[:sent]).hexdigest())
        return f"({sent} bytes taken)"


def server_ends(how):
    with connect() as stream:
        stream.sendall(how)
        try:
            same(stream.recv(1), b"")
        except ConnectionResetError:
            pass


def abrupt(reset):
    stream = connect()
    stream.sendall(b"e" + content(200_000))
    if reset:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
    there_and_back(1)


for size in SIZES:
    cell(f"{label} there and back {size}", lambda: there_and_back(size))
    cell(f"{label} echo {size}", lambda: echo(size, 1 << 16))
cell(f"{label} slow writer", lambda: echo(3000, 1))
cell(f"{label} full both ways", lambda: full_before_read(16 << 20))
cell(f"{label} server closes", lambda: server_ends(b"c"))
cell(f"{label} server resets", lambda: server_ends(b"r"))
cell(f"{label} client closes", lambda: abrupt(False))
cell(f"{label} client resets", lambda: abrupt(True))
if takes_huge(label):
    cell(f"{label} there and back {HUGE}", lambda: there_and_back(HUGE))
