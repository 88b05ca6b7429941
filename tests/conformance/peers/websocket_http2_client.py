"""A WebSocket client over HTTP/2 (RFC 8441): messages by the `websockets` library, frames by hand: ADDRESS LABEL."""

import socket
import struct
import sys

from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State

from cells import SIZES, cell, content, same

address, label = sys.argv[1:]

DATA, HEADERS, RESET, SETTINGS, PING, GO_AWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW, ENABLE_CONNECT_PROTOCOL = 4, 8
LARGEST = (1 << 31) - 1


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(*fields):
    """Literals without indexing, which need no table."""
    texts = ((text.encode() for text in field) for field in fields)
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in texts)


class Tunnel:
    """One stream of one connection, open for a WebSocket."""

    def __init__(self):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host.strip("[]"), int(port)), timeout=90)
        self.stream_window, self.connection_window = 65_535, 65_535
        self.takes_tunnels = self.is_open = False
        self.protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self.parts = []
        settings = struct.pack(">HI", INITIAL_WINDOW, LARGEST)
        greeting = frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST - 65_535))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + greeting)
        while not self.takes_tunnels:
            self.read()
        head = block(
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "peer"),
            (":path", "/"),
            ("sec-websocket-version", "13"),
        )
        self.socket.sendall(frame(HEADERS, END_HEADERS, 1, head))
        while not self.is_open:
            self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def exactly(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            assert piece, "the connection has ended"
            data += piece
        return data

    def read(self):
        """Takes one frame."""
        head = self.exactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big")
        payload = self.exactly(length)
        if kind == SETTINGS and not flags & ACK:
            told = dict(struct.iter_unpack(">HI", payload))
            self.takes_tunnels |= told.get(ENABLE_CONNECT_PROTOCOL) == 1
            self.stream_window += told.get(INITIAL_WINDOW, 65_535) - 65_535
            self.socket.sendall(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(payload, "big")
            if stream == 0:
                self.connection_window += more
            else:
                self.stream_window += more
        elif kind == HEADERS:
            # The first field, and whole in the static table.
            same(payload[0], 0x88)
            self.is_open = True
        elif kind == DATA:
            self.protocol.receive_data(payload)
            if flags & END_STREAM:
                self.protocol.receive_eof()
        elif kind in (RESET, GO_AWAY):
            raise AssertionError(f"frame {kind}: {payload!r}")

    def flush(self):
        """Sends what the library has for the server, as windows allow."""
        rest = b"".join(self.protocol.data_to_send())
        while rest:
            room = min(16_384, self.stream_window, self.connection_window)
            if room <= 0:
                self.read()
                continue
            piece, rest = rest[:room], rest[room:]
            self.stream_window -= len(piece)
            self.connection_window -= len(piece)
            self.socket.sendall(frame(DATA, 0, 1, piece))

    def message(self):
        """The next message, or frame of control."""
        while True:
            events = self.protocol.events_received()
            for index, event in enumerate(events):
                if event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    assert index + 1 == len(events), "more behind a frame of control"
                    return event
                self.parts.append(bytes(event.data))
                if event.fin:
                    whole, self.parts = b"".join(self.parts), []
                    assert index + 1 == len(events), "more than was asked for"
                    return whole
            self.flush()
            self.read()


def echo(length):
    with Tunnel() as tunnel:
        for _ in range(2):
            tunnel.protocol.send_binary(content(length))
            tunnel.flush()
            same(tunnel.message(), content(length))


def ping():
    with Tunnel() as tunnel:
        tunnel.protocol.send_ping(b"there?")
        tunnel.flush()
        pong = tunnel.message()
        same((pong.opcode, bytes(pong.data)), (Opcode.PONG, b"there?"))


def server_closes():
    with Tunnel() as tunnel:
        tunnel.protocol.send_text(b"close")
        tunnel.flush()
        same(tunnel.message().opcode, Opcode.CLOSE)
        received = tunnel.protocol.close_rcvd
        same((received.code, received.reason), (4001, "as you wish"))


def abrupt():
    tunnel = Tunnel()
    tunnel.protocol.send_binary(content(1 << 16))
    tunnel.flush()
    tunnel.socket.close()
    echo(1)


for size in SIZES:
    cell(f"{label} echo {size}", lambda: echo(size))
cell(f"{label} ping", ping)
cell(f"{label} the server closes with a code", server_closes)
cell(f"{label} the client goes away", abrupt)
