"""Python's http.server, which writes down what it took for a request: `SEEN STATUS METHOD TARGET HEXBODY`."""

import http.server
import os
import sys


class Seen(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            parts = []
            while True:
                line = self.rfile.readline()
                if not line.endswith(b"\n"):
                    return None
                size = int(line.split(b";")[0], 16)
                data = self.rfile.read(size) if size else b""
                if len(data) < size:
                    return None
                parts.append(data)
                if size == 0:
                    while self.rfile.readline().strip():
                        pass
                    return b"".join(parts)
                self.rfile.readline()
        length = int(self.headers.get("content-length", 0))
        data = self.rfile.read(length)
        return data if len(data) == length else None

    def answer(self):
        body = self.body()
        if body is None:
            self.close_connection = True
            return
        # One write a line: threads share the log.
        os.write(1, f"SEEN 200 {self.command} {self.path} {body.hex()}\n".encode())
        text = f"{self.command} {self.path}\n".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Seen).serve_forever()
