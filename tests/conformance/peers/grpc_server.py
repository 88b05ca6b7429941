"""gRPC's own server: calls of every kind on plain bytes. PORT [NAME [MAX-AGE-MILLISECONDS]]"""

import sys
import threading
from concurrent import futures

import grpc

port = sys.argv[1]
name = sys.argv[2] if len(sys.argv) > 2 else "one"
age = sys.argv[3] if len(sys.argv) > 3 else None
cancelled = threading.Event()


def echo(request, context):
    given = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-name", name), ("x-given", given.get("x-given", ""))))
    context.set_trailing_metadata((("x-last", "behind"), ("x-last-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-last", "failed"),))
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much: \u00fc, 100% of it")


def wait(request, context):
    context.add_callback(cancelled.set)
    threading.Event().wait(20 if request == b"long" else 0)
    return b"late"


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(10) else b"no"


def collect(requests, context):
    count = total = 0
    for request in requests:
        count += 1
        total += len(request)
    return f"{count} {total}".encode()


def give(request, context):
    number, length = map(int, request.split())
    for _ in range(number):
        yield bytes(length)


def both(requests, context):
    """Answers each message at once, and says one more when the client has closed its side."""
    for request in requests:
        yield request
    yield b"you have closed"


UNARY = {"echo": echo, "fail": fail, "wait": wait, "was_cancelled": was_cancelled}
handlers = {key: grpc.unary_unary_rpc_method_handler(value) for key, value in UNARY.items()}
handlers["collect"] = grpc.stream_unary_rpc_method_handler(collect)
handlers["give"] = grpc.unary_stream_rpc_method_handler(give)
handlers["both"] = grpc.stream_stream_rpc_method_handler(both)
options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
if age:
    options += [("grpc.max_connection_age_ms", int(age)), ("grpc.max_connection_age_grace_ms", 20_000)]
server = grpc.server(futures.ThreadPoolExecutor(32), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("weft.Test", handlers),))
server.add_insecure_port(f"127.0.0.1:{port}")
server.start()
server.wait_for_termination()
