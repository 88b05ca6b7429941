"""What is measured: scenarios, whose subjects each has, and the goals beside them."""

import dataclasses
import time
import typing

import envoy
import floor
import haproxy
import load
import nginx
import processes
import weft
from settings import Setting

ALL = {"weft": (weft, {}), "envoy": (envoy, {}), "haproxy": (haproxy, {}), "nginx": (nginx, {}), "floor": (floor, {})}
WITH_TLS = {name: of for name, of in ALL.items() if name != "floor"}
# Between two proxies Envoy and HAProxy can speak either protocol: both are measured, the better one counts.
PAIRS = {
    "weft": (weft, {}), "envoy-h1": (envoy, {"inside": "http1"}), "envoy-h2": (envoy, {"inside": "http2"}),
    "haproxy-h1": (haproxy, {"inside": "http1"}), "haproxy-h2": (haproxy, {"inside": "http2"}), "nginx": (nginx, {}),
    "floor": (floor, {}),
}


@dataclasses.dataclass
class Goal:
    text: str
    value: float | None
    limit: float
    is_least: bool = False

    def reached(self):
        if self.value is None:
            return None
        return self.value >= self.limit if self.is_least else self.value <= self.limit


@dataclasses.dataclass
class Scenario:
    name: str
    title: str
    setting: dict
    subjects: dict = dataclasses.field(default_factory=lambda: ALL)
    # What one piece of work is called, and what is done: load.requests, load.connections or load.bytes.
    unit: str = "req"
    load: typing.Callable = load.requests
    arguments: dict = dataclasses.field(default_factory=dict)
    # Whether it is measured at a fixed rate too.
    at_rate: bool = False
    # Of the figures of all subjects: the goals and how far they are.
    goals: typing.Callable = lambda figures: []

    def sample(self, place, subject, seconds, warm_up, **more):
        return self.load(place, subject, seconds=seconds, warm_up=warm_up, **self.arguments, **more)


class Figures:
    """Medians by subject; anything of one that is missing is None."""

    def __init__(self, by_subject):
        self.by_subject = by_subject

    def of(self, subject, column):
        return self.by_subject.get(subject, {}).get(column)

    def best(self, subjects, column, choose=min):
        found = [self.of(subject, column) for subject in subjects]
        found = [value for value in found if value]
        return choose(found) if found else None

    def ratio(self, column, subjects, choose=min):
        """Ours over the best of these; None where ours did less than asked."""
        if self.of("weft", "as_bytes"):
            return None
        ours, theirs = self.of("weft", column), self.best(subjects, column, choose)
        return ours / theirs if ours and theirs else None


HAPROXY, ENVOY = ["haproxy", "haproxy-h1", "haproxy-h2"], ["envoy", "envoy-h1", "envoy-h2"]
PEERS = [*HAPROXY, *ENVOY, "nginx"]


def full_handshakes(text, subjects, limit):
    """Only where ours were full ones."""
    def make(figures):
        was_full = not figures.of("weft", "resumed")
        return Goal(f"per core / {text}", figures.ratio("per_core", subjects, max) if was_full else None, limit, is_least=True)
    return make


def cpu(text, subjects, limit, column="cpu_us"):
    return lambda figures: Goal(f"CPU / {text}", figures.ratio(column, subjects), limit)


def per_core(text, subjects, limit):
    return lambda figures: Goal(f"per core / {text}", figures.ratio("per_core", subjects, max), limit, is_least=True)


def goals(*makers):
    return lambda figures: [make(figures) for make in makers]


def http(protocol, chain, **more):
    return {"protocol": protocol, "chain": chain, **more}


def requests(name, title, protocol, chain, *wanted, size=1024, subjects=None, at_rate=True):
    if subjects is None:
        subjects = PAIRS if chain == "pair" and protocol == "http1" else ALL
    arguments = {"protocol": protocol, "size": size}
    return Scenario(name, title, http(protocol, chain), subjects, arguments=arguments, at_rate=at_rate, goals=goals(*wanted))


WINDOWS = [
    requests("http1", "HTTP/1.1, one proxy, 1 KiB", "http1", "plain",
             cpu("HAProxy's", HAPROXY, 0.85), cpu("nginx's", ["nginx"], 0.85)),
    requests("http1-10k", "HTTP/1.1, one proxy, 10 KiB", "http1", "plain", cpu("the best peer's", PEERS, 1.0),
             size=10 * 1024, at_rate=False),
    requests("http1-64k", "HTTP/1.1, one proxy, 64 KiB", "http1", "plain", size=64 * 1024, at_rate=False),
    requests("pair", "HTTP/1.1, mutual TLS between two proxies, 1 KiB", "http1", "pair",
             cpu("HAProxy's best", HAPROXY, 0.95), cpu("Envoy's best", ENVOY, 0.4),
             cpu("the best peer's, at 2,000 req/s", PEERS, 0.85, "rate_cpu_us")),
    requests("pair-10k", "HTTP/1.1, mutual TLS between two proxies, 10 KiB", "http1", "pair", size=10 * 1024, at_rate=False),
    requests("http2", "HTTP/2, one proxy, 10 connections with 10 streams, 1 KiB", "http2", "plain",
             cpu("Envoy's", ENVOY, 0.5)),
    requests("http2-pair", "HTTP/2, mutual TLS between two proxies, 10 connections with 10 streams, 1 KiB", "http2", "pair",
             cpu("Envoy's", ENVOY, 0.5)),
    requests("grpc", "gRPC unary, one proxy, 10 connections with 10 streams, 100 bytes each way", "grpc", "plain",
             cpu("Envoy's", ENVOY, 0.5)),
    requests("grpc-pair", "gRPC unary, mutual TLS between two proxies, 10 connections with 10 streams, 100 bytes each way",
             "grpc", "pair", cpu("Envoy's", ENVOY, 0.5)),
    Scenario("tcp", "TCP, one proxy, 8 connections, bytes without end", {"protocol": "tcp", "chain": "plain"},
             unit="GB", load=load.bytes, goals=goals(per_core("the best peer's", PEERS, 1.0))),
    Scenario("tcp-pair", "TCP, mutual TLS between two proxies, 8 connections, bytes without end",
             {"protocol": "tcp", "chain": "pair"}, unit="GB", load=load.bytes, goals=goals(per_core("Envoy's", ENVOY, 1.2))),
    Scenario("handshakes", "full handshakes: two proxies, both halves, a TCP connection and a request each",
             {"protocol": "tcp", "chain": "pair"}, unit="conn", load=load.connections,
             goals=goals(full_handshakes("Envoy's", ENVOY, 1.25))),
    Scenario("handshakes-resumed", "the same, sessions resumed where the subject does it",
             {"protocol": "tcp", "chain": "pair", "resume": True}, WITH_TLS, unit="conn", load=load.connections),
    Scenario("handshakes-side", "full handshakes: one proxy's TLS side, a request each",
             {"protocol": "http1", "chain": "side"}, WITH_TLS, unit="conn", load=load.connections,
             goals=goals(full_handshakes("Envoy's", ENVOY, 1.25))),
    Scenario("handshakes-side-resumed", "the same, sessions resumed where the subject does it",
             {"protocol": "http1", "chain": "side", "resume": True}, WITH_TLS, unit="conn", load=load.connections,
             arguments={"resume": True}),
]


@dataclasses.dataclass
class Once:
    """Measured once, by a function of its own: (columns' values by name) for a subject."""
    name: str
    title: str
    setting: dict
    columns: list
    measure: typing.Callable
    subjects: dict = dataclasses.field(default_factory=lambda: ALL)
    goals: typing.Callable = lambda figures: []


def idle(place, module, setting, name, options):
    """KiB by which a connection that has been used once and idles makes the subject grow."""
    count = options.idle_connections
    plan = module.plan(place, dataclasses.replace(setting, connections=count + 500), name)
    subject = place.run(plan)
    load.probe(lambda: load.connections(place, subject, seconds=0.1, warm_up=0.0))
    before = subject.memory()
    held = load.idle(place, subject, count)
    try:
        return {"connections": count, "before": before, "after": subject.memory(),
                "each": (subject.memory() - before) * 1024 / count}
    finally:
        held.communicate()


def start(place, module, setting, name, options):
    """Milliseconds from exec to the first proxied answer."""
    plan = module.plan(place, setting, name)
    url = f"http://127.0.0.1:{plan.port}/"
    took = []
    # The first is for what is kept on disk, by the kernel or by the subject.
    for number in range(options.starts + 1):
        began = time.monotonic()
        process = place.start(plan.programs[0], place.subject_cpu)
        while not processes.answers(url)():
            if process.poll() is not None or time.monotonic() - began > processes.PATIENCE:
                raise processes.Skip(f"does not start: {processes.last_words(process)}")
            time.sleep(0.0005)
        took.append((time.monotonic() - began) * 1000)
        processes.end(process)
    took = sorted(took[1:])
    return {"median": took[len(took) // 2], "fastest": took[0], "slowest": took[-1]}


def memory(place, module, setting, name, options):
    """MiB resident of an idle proxy that has answered once, with one service and with many."""
    found = {}
    for column, count in (("one", 0), ("many", options.services)):
        plan = module.plan(place, dataclasses.replace(setting, services=count), f"{name}-{column}")
        subject = place.run(plan)
        load.probe(lambda: load.requests(place, subject, "http1", 0.05, 0.0))
        found[column] = subject.memory()
        for process in subject.processes:
            processes.end(process)
    return {**found, "growth": found["many"] - found["one"]}


IDLE = [("connections", "connections", ",.0f"), ("before", "RSS MiB before", ".1f"), ("after", "after", ".1f"),
        ("each", "KiB each", ".2f")]

ONCE = [
    Once("idle", "idle connections, plaintext, each used once", http("http1", "plain"), IDLE, idle,
         goals=goals(lambda figures: Goal("KiB each", figures.of("weft", "each"), 1.6 * 1000 / 1024))),
    Once("idle-tls", "idle connections, mutual TLS, each used once", http("http1", "side"), IDLE, idle, WITH_TLS,
         goals=goals(lambda figures: Goal("KiB each", figures.of("weft", "each"), 12.0))),
    Once("start", "from exec to the first proxied answer", http("http1", "plain"),
         [("median", "ms", ".1f"), ("fastest", "fastest", ".1f"), ("slowest", "slowest", ".1f")], start,
         goals=goals(lambda figures: Goal("ms", figures.of("weft", "median"), 15.0))),
    Once("memory", "resident memory after one request, with one service and with many", http("http1", "plain"),
         [("one", "MiB, one service", ".1f"), ("many", "many services", ".1f"), ("growth", "growth", ".1f")], memory,
         goals=goals(lambda figures: Goal("MiB, one service", figures.of("weft", "one"), 8.0),
                     lambda figures: Goal("MiB for the others", figures.of("weft", "growth"), 20e6 / 2**20))),
]


def setting_of(scenario, overrides, upstream):
    return Setting(upstream=upstream, **{**scenario.setting, **overrides})
