"""Bytes: what comes is hashed to its end; then the hash goes back, and after it as many bytes as came.

A first byte of `e` asks for an echo while it comes, `r` for a reset, `c` for an end at once.
"""

import hashlib
import socket
import socketserver
import struct
import sys

import cells


class Server(socketserver.BaseRequestHandler):
    def handle(self):
        stream = self.request
        first = stream.recv(1)
        if first == b"r":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        if first in (b"", b"c"):
            return
        state, length = hashlib.sha256(), 0
        while data := stream.recv(1 << 16):
            state.update(data)
            length += len(data)
            if first == b"e":
                stream.sendall(data)
        if first == b"h":
            stream.sendall(state.hexdigest().encode())
            for piece in cells.pieces(length):
                stream.sendall(piece)


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        pass


Listener(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
