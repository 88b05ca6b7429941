"""Load by wrk, and what the subject spent on it."""

import os
import re
import subprocess
import time

import processes

# About 600 bytes of head, as a service behind a login gets them.
FIELDS = {
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64) bench/1.0",
    "accept": "application/json, text/plain, */*",
    "accept-encoding": "gzip, deflate, br",
    "accept-language": "en-GB,en;q=0.8,de;q=0.5",
    "authorization": "Bearer " + "t" * 160,
    "cookie": "session=0123456789abcdef0123456789abcdef; theme=dark",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def run(place, subject, seconds, connections):
    """Loads a subject; what came of it."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for name, value in FIELDS.items():
        command += ["-H", f"{name}: {value}"]
    command.append(f"http://127.0.0.1:{subject.port}/orders/4711/items?page=2")
    before, busy_before, started = subject.spent(), processes.cpu_busy(place.subject_cpu), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, {place.load_cpu}))
    elapsed = time.monotonic() - started
    after, busy_after = subject.spent(), processes.cpu_busy(place.subject_cpu)
    if done.returncode != 0:
        raise SystemExit(f"benches/lab: wrk failed: {done.stderr}")
    text = done.stdout
    requests = int(find(r"(\d+) requests in", text) or 0)
    if requests == 0:
        raise SystemExit(f"benches/lab: {subject.name} answered nothing:\n{text}")
    cpu, user, system = (end - begin for begin, end in zip(before, after))
    user_share = user / (user + system) if user + system > 0 else 0.0
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return {
        "requests": requests,
        "cpu_us": cpu / requests * 1e6,
        "user_us": cpu / requests * 1e6 * user_share,
        "rate": requests / elapsed,
        "busy": cpu / elapsed,
        "foreign": max(0.0, (busy_after - busy_before - cpu) / elapsed),
        "p50_us": latency(text, 50),
        "p99_us": latency(text, 99),
        "failed": int(find(r"Non-2xx or 3xx responses: (\d+)", text) or 0)
        + (sum(map(int, errors.groups())) if errors else 0),
    }


def find(pattern, text):
    found = re.search(pattern, text)
    return found.group(1) if found else None


def latency(text, percent):
    found = re.search(rf"^\s*{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    if not found:
        raise SystemExit(f"benches/lab: wrk says nothing of latency:\n{text}")
    number, unit = found.groups()
    return float(number) * UNITS[unit]
