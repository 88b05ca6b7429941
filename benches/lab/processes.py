"""Processes on a processor of their own, when they are ready, and what they hold."""

import dataclasses
import os
import pathlib
import resource
import signal
import socket
import subprocess
import tempfile
import time
import typing
import urllib.error
import urllib.request

# How long anything may take to get ready.
PATIENCE = 30.0


class Skip(Exception):
    """A subject cannot be measured here; why."""


@dataclasses.dataclass
class Program:
    """What is started as one process, and when it can be used."""
    name: str
    command: list
    is_ready: typing.Callable[[], bool]
    environment: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Plan:
    """A subject before it runs: programs in the order of their start, and the port its client talks to."""
    name: str
    programs: list
    port: int
    # The service's identity at its TLS side: a certificate and key for its clients, and the ALPN name they use.
    client: dict = dataclasses.field(default_factory=dict)
    note: str = ""
    # Where its metrics are, for Weft.
    metrics: list = dataclasses.field(default_factory=list)


class Place:
    """Where a run happens: files, processors, programs, and the processes to end."""

    def __init__(self, stack, scratch, programs, subject_cpu, load_cpu):
        self.stack = stack
        self.scratch = scratch
        self.programs = programs
        self.subject_cpu = subject_cpu
        self.load_cpu = load_cpu

    def within(self, stack):
        """The same place, for processes that end with `stack`."""
        return Place(stack, self.scratch, self.programs, self.subject_cpu, self.load_cpu)

    def directory(self, name):
        """A new directory that unprivileged workers can read."""
        made = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))
        made.chmod(0o755)
        return made

    def start(self, program, cpu):
        """Starts a program on one processor; it ends with the stack. Its output goes to a file of its name."""
        log = self.directory("log") / f"{program.name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in program.command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **program.environment}, preexec_fn=lambda: settle(cpu))
        process.log = log
        self.stack.callback(end, process)
        return process

    def run(self, plan):
        """Starts a subject and waits until it can be used."""
        processes = []
        for program in plan.programs:
            process = self.start(program, self.subject_cpu)
            wait_until(program.is_ready, program.name, process)
            processes.append(process)
        return Subject(plan, processes)


class Subject:
    """What is measured."""

    def __init__(self, plan, processes):
        self.name = plan.name
        self.port = plan.port
        self.client = plan.client
        self.note = plan.note
        self.metrics = plan.metrics
        self.processes = processes

    def all_ids(self):
        for process in self.processes:
            if process.poll() is not None:
                raise Skip(f"has ended with {process.returncode}: {last_words(process)}")
        return [found for process in self.processes for found in family(process.pid)]

    def memory(self):
        """MiB resident, summed over the processes."""
        found = 0
        for pid in self.all_ids():
            for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    found += int(line.split()[1])
        return found / 1024


def settle(cpu):
    """In a new process: its processor, and as many descriptors as it may have."""
    os.sched_setaffinity(0, {cpu})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def family(pid):
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in pathlib.Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def end(process):
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        # Some drain for as long as a connection is open; nobody waits for these.
        process.kill()
        process.wait()


def free_port():
    """A port nobody has; another program could take it before ours does, which fails the start and nothing else."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(ready, what, process, patience=PATIENCE):
    """Waits for a condition; says what the program said when it does not come."""
    deadline = time.monotonic() + patience
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise Skip(f"{what} did not come up: {last_words(process)}")
        time.sleep(0.01)


def last_words(process):
    said = process.log.read_text(errors="replace").strip().splitlines()
    return " / ".join(said[-3:]) or "it said nothing"


def listens(port):
    def ask():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    return ask


def answers(url):
    def ask():
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False
    return ask
