"""Processes on a processor of their own, what they spend, and when they are ready."""

import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

# How long anything may take to get ready.
PATIENCE = 20.0
TICKS = os.sysconf("SC_CLK_TCK")


class Place:
    """Where a run happens: files, processors, and the processes to end."""

    def __init__(self, stack, scratch, subject_cpu, load_cpu):
        self.stack = stack
        self.scratch = scratch
        self.subject_cpu = subject_cpu
        self.load_cpu = load_cpu

    def start(self, name, command, cpu, environment=None):
        """Starts a program on one processor; it ends with the run. Its output goes to NAME.log."""
        log = self.scratch / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **(environment or {})}, preexec_fn=lambda: os.sched_setaffinity(0, {cpu}))
        process.log = log
        self.stack.callback(end, process)
        return process


class Subject:
    """What is measured: processes, and the port a client talks to."""

    def __init__(self, name, processes, port, hops, is_baseline=False):
        self.name = name
        self.processes = processes
        self.port = port
        self.hops = hops
        self.is_baseline = is_baseline

    def all_ids(self):
        return [found for process in self.processes for found in family(process.pid)]

    def spent(self):
        """Seconds on a processor so far: in all, and the share of that outside the kernel."""
        total = user = system = 0
        for pid in self.all_ids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                user += int(fields[11])
                system += int(fields[12])
        return total / 1e9, user / TICKS, system / TICKS

    def memory(self):
        """MiB, summed over the processes."""
        found = {"rss": 0.0, "anonymous": 0.0}
        for pid in self.all_ids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key == "VmRSS":
                    found["rss"] += int(value.split()[0]) / 1024
                elif key == "RssAnon":
                    found["anonymous"] += int(value.split()[0]) / 1024
        return found


def family(pid):
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def cpu_busy(cpu):
    """Seconds a processor has worked since the machine started."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise SystemExit(f"benches/lab: no processor {cpu}")


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port():
    """A port nobody has; another program could take it before ours does, which fails the start and nothing else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready, what, process):
    """Waits for a condition; says what the program said when it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            said = process.log.read_text(errors="replace")[-2000:]
            raise SystemExit(f"benches/lab: {what} did not come up:\n{said}")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False
