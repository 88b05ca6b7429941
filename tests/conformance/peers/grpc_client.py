"""gRPC's own client: ADDRESS LABEL [all|balance|goaway]"""

import sys
import threading
from collections import Counter

import grpc

from cells import HUGE, SIZES, cell, content, same, takes_huge

address, label, *what = sys.argv[1:]
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]


def channel():
    return grpc.insecure_channel(address, options=OPTIONS)


def unary(channel, name):
    return channel.unary_unary(f"/weft.Test/{name}")


def echo(length):
    with channel() as opened:
        answer, call = unary(opened, "echo").with_call(content(length), metadata=(("x-given", "a b"),), timeout=60)
        same(len(answer), length)
        same(answer, content(length))
        same(dict(call.initial_metadata())["x-given"], "a b")
        last = dict(call.trailing_metadata())
        same((last["x-last"], last["x-last-bin"]), ("behind", b"\x00\xff"))


def status():
    with channel() as opened:
        try:
            unary(opened, "fail")(b"", timeout=30)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            same(error.details(), "too much: \u00fc, 100% of it")
            same(dict(error.trailing_metadata())["x-last"], "failed")
        else:
            raise AssertionError("it succeeded")


def unknown():
    with channel() as opened:
        try:
            unary(opened, "nothing")(b"", timeout=30)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.UNIMPLEMENTED)


def deadline():
    with channel() as opened:
        try:
            unary(opened, "wait")(b"long", timeout=0.3)
        except grpc.RpcError as error:
            same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            raise AssertionError("it succeeded")


def cancel():
    with channel() as opened:
        call = unary(opened, "wait").future(b"long")
        # So that the call is surely under way.
        unary(opened, "echo")(b"", timeout=30)
        call.cancel()
        same(unary(opened, "was_cancelled")(b"", timeout=30), b"yes")


def client_stream(number, length):
    with channel() as opened:
        said = opened.stream_unary("/weft.Test/collect")((bytes(length) for _ in range(number)), timeout=120)
        same(said, f"{number} {number * length}".encode())


def server_stream(number, length):
    with channel() as opened:
        answers = opened.unary_stream("/weft.Test/give")(f"{number} {length}".encode(), timeout=120)
        same(Counter(map(len, answers)), Counter({length: number}))


def slow_reader(number, length):
    """Nobody reads until all windows are shut."""
    with channel() as opened:
        answers = opened.unary_stream("/weft.Test/give")(f"{number} {length}".encode(), timeout=120)
        same(len(next(answers)), length)
        threading.Event().wait(1)
        same(Counter(map(len, answers)), Counter({length: number - 1}))


def slow_writer():
    """Messages that come one by one, long after the call has begun."""
    def requests():
        for _ in range(20):
            threading.Event().wait(0.05)
            yield b"x"

    with channel() as opened:
        same(opened.stream_unary("/weft.Test/collect")(requests(), timeout=60), b"20 20")


def leaves(stage):
    """The whole client goes away during a call; others are served as before."""
    opened = channel()
    call = unary(opened, "wait").future(b"long") if stage == "waiting" else None
    if stage == "reading":
        call = opened.unary_stream("/weft.Test/give")(b"1000 65536", timeout=60)
        next(call)
    # So that the call is surely under way.
    same(unary(opened, "echo")(b"x", timeout=30), b"x")
    opened.close()
    del call
    echo(1)


def both():
    """One message at a time, each answered before the next; our side closes first."""
    with channel() as opened:
        asked, turn = [b"one", content(100_000), b"", b"four"], threading.Semaphore(1)

        def requests():
            for message in asked:
                assert turn.acquire(timeout=30), "no answer"
                yield message

        found = []
        for answer in opened.stream_stream("/weft.Test/both")(requests(), timeout=60):
            found.append(answer)
            turn.release()
        same(found, [*asked, b"you have closed"])


def at_once(number):
    """Many calls under way on one connection."""
    with channel() as opened:
        calls = [unary(opened, "echo").future(f"call {at}".encode(), timeout=60) for at in range(number)]
        for at, call in enumerate(calls):
            same(call.result(), f"call {at}".encode())


def balance():
    """Call by call: one channel reaches every server."""
    with channel() as opened:
        names = Counter()
        for _ in range(300):
            _, call = unary(opened, "echo").with_call(b"", timeout=30)
            names[dict(call.initial_metadata())["x-name"]] += 1
        same(len(names), 3)
        # Who is slower gets less, and how much slower is the machine's doing.
        assert max(names.values()) < 290, f"{names}"
        return str(dict(names))


def goaway(threads, calls):
    """Servers that end their connections all the time: no call notices."""
    with channel() as opened:
        wrong = []

        def load():
            for at in range(calls):
                try:
                    same(unary(opened, "echo")(f"{at}".encode(), timeout=60), f"{at}".encode())
                except Exception as error:  # pylint: disable=broad-except
                    wrong.append(repr(error)[:300])

        workers = [threading.Thread(target=load) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not wrong, f"{len(wrong)} of {threads * calls} calls failed: {wrong[:2]}"


if what == ["balance"]:
    cell(f"{label} one channel, three servers", balance)
    sys.exit()
if what == ["goaway"]:
    cell(f"{label} connections end under load", lambda: goaway(8, 500))
    sys.exit()
for size in SIZES + ([HUGE] if takes_huge(label) else []):
    cell(f"{label} unary {size}", lambda: echo(size))
cell(f"{label} error status with details and trailers", status)
cell(f"{label} unknown method", unknown)
cell(f"{label} deadline", deadline)
cell(f"{label} cancel reaches the server", cancel)
cell(f"{label} client stream of 100 x 64 KiB", lambda: client_stream(100, 65536))
cell(f"{label} server stream of 100 x 64 KiB", lambda: server_stream(100, 65536))
cell(f"{label} client stream of 10,000 small messages", lambda: client_stream(10_000, 10))
cell(f"{label} server stream of 10,000 small messages", lambda: server_stream(10_000, 10))
cell(f"{label} slow reader", lambda: slow_reader(200, 65536))
cell(f"{label} slow writer", slow_writer)
for where in ("waiting", "reading"):
    cell(f"{label} the client goes away {where}", lambda: leaves(where))
cell(f"{label} both ways in turn, then half-close", both)
cell(f"{label} 200 calls at once", lambda: at_once(200))
