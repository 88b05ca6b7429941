"""Load by weft-load, which reads what the subject spends itself, at the very beginning and end of a window."""

import json
import os
import subprocess
import time

from processes import Skip, settle

# Longest wait for a subject's first right answers.
PATIENCE = 10.0
# Rate of the second look, at which latency is measured.
RATE = 2000


def requests(place, subject, protocol, seconds, warm_up, size=1024, rate=None):
    # 10 connections with 10 streams where the protocol has streams, else 50 connections.
    connections = 50 if protocol == "http1" else 10
    extra = ["--rate", rate] if rate else []
    return run(place, subject, seconds, warm_up, "requests", "--protocol", protocol, "--connections", connections,
               "--size", size, *extra)


def connections(place, subject, seconds, warm_up, resume=False):
    tls = [part for name, value in subject.client.items() for part in (f"--{name}", value)]
    return run(place, subject, seconds, warm_up, "connections", *tls, *(["--resume"] if resume and tls else []))


def bytes(place, subject, seconds, warm_up):
    return run(place, subject, seconds, warm_up, "bytes")


def run(place, subject, seconds, warm_up, kind, *arguments):
    ids = ",".join(map(str, subject.all_ids()))
    command = [place.programs / "weft-load", kind, "--to", f"127.0.0.1:{subject.port}", *arguments, "--seconds", seconds,
               "--warm-up", warm_up, "--watch", ids, "--subject-cpu", place.subject_cpu, "--load-cpu", place.load_cpu]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60,
                          preexec_fn=lambda: settle(place.load_cpu))
    if done.returncode != 0:
        raise Skip(f"the load failed: {done.stderr.strip()[:300]}")
    return figures(json.loads(done.stdout))


def probe(attempt, patience=PATIENCE):
    """Waits for the subject's first right answers: a configuration may still be on its way to it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            sample = attempt()
            reason = sample["failure"] if sample["failed"] else "nothing was answered"
            if not sample["failed"] and sample["work"]:
                return
        except Skip as failed:
            reason = str(failed)
        if time.monotonic() > deadline:
            raise Skip(f"does not work: {reason}")
        time.sleep(0.1)


def figures(raw):
    """What is told of a window. `work` is requests, or GB where bytes are counted."""
    work = raw["bytes"] / 1e9 if raw["bytes"] else raw["requests"]
    ticks = raw["user"] + raw["system"]
    cpu = raw["processor"] / work * 1e6 if work else 0.0
    return {
        "work": work,
        "failed": raw["failed"],
        "failure": raw["failure"],
        "cpu_us": cpu,
        "user_us": cpu * raw["user"] / ticks if ticks else 0.0,
        "rate": work / raw["seconds"],
        "per_core": work / raw["processor"] if raw["processor"] else 0.0,
        "busy": raw["processor"] / raw["seconds"],
        # What others took of the subject's processor.
        "foreign": max(0.0, raw["anybody"] - raw["processor"]) / raw["seconds"],
        "load": raw["load"] / raw["seconds"],
        "p50_us": raw["p50_us"],
        "p99_us": raw["p99_us"],
        "resumed": raw["resumed"] / raw["requests"] if raw["requests"] else 0.0,
    }


def idle(place, subject, count):
    """Opens idle connections; gives what closes them."""
    tls = [part for name, value in subject.client.items() for part in (f"--{name}", value)]
    command = [place.programs / "weft-load", "idle", "--to", f"127.0.0.1:{subject.port}", "--connections", count, *tls]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, preexec_fn=lambda: settle(place.load_cpu))
    if process.stdout.readline().strip() != str(count):
        raise Skip(f"no {count} connections: {process.communicate()[1].strip()[:300]}")
    return process
