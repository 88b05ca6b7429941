"""curl over HTTP/2 with prior knowledge against a server that echoes what is uploaded: ADDRESS LABEL."""

import hashlib
import subprocess
import sys
import tempfile

from cells import HUGE, SIZES, cell, digest, pieces, same

address, label = sys.argv[1:]
place = tempfile.TemporaryDirectory()


def curl(*words, source=None):
    words = ["curl", "-sS", "--fail", "--max-time", "90", "--http2-prior-knowledge", *words]
    done = subprocess.run(words, stdin=source, capture_output=True, check=False)
    assert done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr!r}"
    return done.stdout


def echo(length, counted, *more):
    path = f"{place.name}/{length}"
    with open(path, "wb") as file:
        for piece in pieces(length):
            file.write(piece)
    if counted:
        said = curl(*more, "--data-binary", f"@{path}", f"http://{address}/")
    else:
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
            said = curl(*more, "-X", "POST", "-T", "-", f"http://{address}/", source=cat.stdout)
    same((len(said), hashlib.sha256(said).hexdigest()), (length, digest(length)))


for counted in (True, False):
    how = "length" if counted else "no length"
    for size in SIZES[1:]:
        cell(f"{label} there and back {size} {how}", lambda: echo(size, counted))
cell(f"{label} slow reader and writer", lambda: echo(1 << 20, True, "--limit-rate", "800k"))
cell(f"{label} there and back {HUGE}", lambda: echo(HUGE, "pair" in label))
