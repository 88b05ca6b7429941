"""Cells of the matrix: each is one line, `ok NAME` or `WRONG NAME: reason`."""

import hashlib
import random
import sys
import traceback

BLOCK = random.Random(7).randbytes(1 << 16)
# Around the frame and the small buffer, the protocol's first window, and the large buffer.
SIZES = [0, 1, 16383, 16384, 16385, 65535, 65536, 65537, 66559, 66560, 66561, 1 << 20]
HUGE = 100 << 20


def pieces(length):
    """Bytes that are the same everywhere, a block at a time."""
    while length > 0:
        yield BLOCK[:length]
        length -= len(BLOCK)


def content(length):
    return b"".join(pieces(length))


def digest(length):
    state = hashlib.sha256()
    for piece in pieces(length):
        state.update(piece)
    return state.hexdigest()


def takes_huge(label):
    """Once for each protocol and way: where nobody declared the port the same bytes pass by the same code."""
    return "undeclared" not in label


def cell(name, check):
    try:
        said = check()
        print("ok", name, said if isinstance(said, str) else "", flush=True)
    except Exception as error:  # pylint: disable=broad-except
        print(f"WRONG {name}: {type(error).__name__}: {str(error)[:600]!r}", flush=True)
        traceback.print_exc(file=sys.stderr)


def same(found, expected):
    assert found == expected, f"{found!r:.200}, not {expected!r:.200}"
