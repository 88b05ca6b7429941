"""curl, and plain sockets where curl is too well-behaved: ADDRESS LABEL CURL-OPTION..."""

import hashlib
import socket
import struct
import subprocess
import sys
import tempfile

from cells import HUGE, SIZES, cell, content, digest, pieces, same, takes_huge

address, label, *options = sys.argv[1:]
host, port = address.split(":")
place = tempfile.TemporaryDirectory()
url = f"http://{address}"


def curl(*words, source=None):
    words = ["curl", "-sS", "--fail", "--max-time", "90", *options, *words]
    done = subprocess.run(words, stdin=source, capture_output=True, check=False)
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr!r}"
    return done.stdout


def upload(length, chunked):
    path = f"{place.name}/{length}"
    with open(path, "wb") as file:
        for piece in pieces(length):
            file.write(piece)
    if chunked:
        # From a pipe curl cannot know how long it is.
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
            said = curl("-T", "-", f"{url}/up", source=cat.stdout)
    else:
        said = curl("--data-binary", f"@{path}", f"{url}/up")
    same(said.decode(), f"{length} {digest(length)}")


def download(length, chunked, *more):
    said = curl(*more, f"{url}/bytes/{length}" + ("?chunked" if chunked else ""))
    same((len(said), hashlib.sha256(said).hexdigest()), (length, digest(length)))


for chunked in (False, True):
    framing = "chunked" if chunked else "length"
    for size in SIZES:
        cell(f"{label} download {size} {framing}", lambda: download(size, chunked))
        cell(f"{label} upload {size} {framing}", lambda: upload(size, chunked))
cell(f"{label} slow reader", lambda: download(1 << 20, False, "--limit-rate", "800k"))
cell(f"{label} HEAD", lambda: curl("-I", f"{url}/bytes/70000") or None)
if takes_huge(label):
    # Each framing each way, half of them over each way.
    is_pair = "pair" in label
    cell(f"{label} download {HUGE} {'chunked' if is_pair else 'length'}", lambda: download(HUGE, is_pair))
    cell(f"{label} upload {HUGE} {'length' if is_pair else 'chunked'}", lambda: upload(HUGE, not is_pair))


def several():
    """Many on one connection, in order."""
    said = curl(*[f"{url}/bytes/{size}" for size in SIZES]) if not options else None
    if said is not None:
        same(hashlib.sha256(said).hexdigest(), hashlib.sha256(b"".join(map(content, SIZES))).hexdigest())


cell(f"{label} several on one connection", several)
if options:
    sys.exit()


def connect():
    stream = socket.create_connection((host, int(port)), timeout=30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def all_of(stream):
    data = b""
    while piece := stream.recv(65536):
        data += piece
    return data


def slow_writer():
    with connect() as stream:
        for byte in b"POST /up HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n":
            stream.sendall(bytes([byte]))
        body = content(20_000)
        for at in range(0, len(body), 997):
            piece = body[at : at + 997]
            for part in (b"%x\r" % len(piece), b"\n" + piece, b"\r", b"\n"):
                stream.sendall(part)
        stream.sendall(b"0\r\n\r\n")
        assert digest(20_000).encode() in all_of(stream)


def early_answer():
    """The server answers without reading the body: its answer arrives although we go on writing."""
    with connect() as stream:
        stream.sendall(b"POST /refuse HTTP/1.1\r\nhost: h\r\ncontent-length: 104857600\r\n\r\n" + bytes(65536))
        said = b""
        while b"no, thanks" not in said:
            piece = stream.recv(65536)
            assert piece, f"the end after {said!r}"
            said += piece


def abrupt(sent, reads, reset):
    """The client goes away at a stage; others are served as before."""
    with connect() as stream:
        stream.sendall(sent)
        if reads:
            assert stream.recv(reads)
        if reset:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    same(curl(f"{url}/"), b"hello")


def cut_off(stage):
    """The server goes away at a stage: the client gets a refusal, or an answer that it can tell is cut off."""
    with connect() as stream:
        stream.sendall(f"GET /break/{stage} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        said = all_of(stream)
    if stage in ("before-head", "in-head"):
        assert b"weft-error: upstream-closed" in said, f"{said!r}"
    else:
        assert b" 503 " in said or b"200 OK" in said and not said.endswith(b"0\r\n\r\n"), f"{said!r}"
    same(curl("--retry", "3", "--retry-delay", "1", f"{url}/"), b"hello")


cell(f"{label} slow writer", slow_writer)
cell(f"{label} early answer", early_answer)
head = b"POST /up HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n"
for how in (False, True):
    end = "reset" if how else "close"
    cell(f"{label} client {end} before the head", lambda: abrupt(b"", 0, how))
    cell(f"{label} client {end} in the head", lambda: abrupt(head[:20], 0, how))
    cell(f"{label} client {end} after the head", lambda: abrupt(head, 0, how))
    cell(f"{label} client {end} in the body", lambda: abrupt(head + bytes(50_000), 0, how))
    get = f"GET /bytes/{HUGE} HTTP/1.1\r\nhost: h\r\n\r\n".encode()
    cell(f"{label} client {end} during the answer", lambda: abrupt(get, 70_000, how))
for where in ("before-head", "in-head", "after-head", "in-body", "in-chunk", "between-chunks"):
    cell(f"{label} server closes {where}", lambda: cut_off(where))
