"""Python's http.server with bodies of any size: GET /bytes/N[?chunked], and POST or PUT answered with length and hash."""

import hashlib
import http.server
import socket
import sys
import threading

import cells

live = set()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        live.add(threading.get_ident())
        super().setup()

    def finish(self):
        live.discard(threading.get_ident())
        try:
            super().finish()
        except OSError:
            pass

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass

    def say(self, text, close=False):
        data = text.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        if close:
            self.send_header("connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self):
        parts = self.path.split("?")
        if parts[0].startswith("/bytes/"):
            self.give(int(parts[0].split("/")[2]), chunked=len(parts) > 1)
        elif parts[0] == "/live":
            self.say(str(len(live)))
        elif parts[0].startswith("/break/"):
            self.cut(parts[0].split("/")[2])
        else:
            self.say("hello")

    do_HEAD = do_GET

    def give(self, length, chunked):
        self.send_response(200)
        self.send_header("x-sha256", cells.digest(length))
        if chunked:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in cells.pieces(length):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def cut(self, stage):
        """Ends the connection at a stage of the answer."""
        said = {
            "before-head": b"",
            "in-head": b"HTTP/1.1 200 OK\r\ncontent-len",
            "after-head": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            "in-body": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
            "in-chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
            "between-chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        }[stage]
        self.wfile.write(said)
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def body(self):
        state, length = hashlib.sha256(), 0
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return state, length
                state.update(self.rfile.read(size))
                length += size
                self.rfile.readline()
        left = int(self.headers.get("content-length", 0))
        while left > 0:
            data = self.rfile.read(min(left, 1 << 16))
            if not data:
                raise ConnectionError("cut off")
            state.update(data)
            length += len(data)
            left -= len(data)
        return state, length

    def do_POST(self):
        if self.path == "/refuse":
            # An answer before the body, as an application that does not want it gives.
            self.say("no, thanks", close=True)
            return
        state, length = self.body()
        self.say(f"{length} {state.hexdigest()}")

    do_PUT = do_POST

    def log_message(self, *_):
        pass


class Listener(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Listener(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
