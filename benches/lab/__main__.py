"""Weft beside nginx and HAProxy: CPU, rate and memory of each, on this machine, in one run.

    python3 benches/lab                      builds, measures, prints the tables
    python3 benches/lab --only weft,nginx    some subjects
    python3 benches/lab --rounds 5 --json results.json

The subjects run on one processor, the load (wrk, one thread) and the application (nginx, one worker, 1 KiB) on
another. Rounds are interleaved: every subject once, then again, so that a busy moment of the machine hits all. CPU is
what the scheduler counted for all threads of the subject, divided by the requests that wrk completed. A subject that
does not saturate its processor (see `busy`) has a rate that is a lower bound. `foreign` is what others took of the
subject's processor: where it is not near zero, run again.

Needs wrk and nginx; haproxy and openssl where their subjects are wanted. Measures nothing but loopback.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import load
import peers
import processes
import weft

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments():
    parser = argparse.ArgumentParser(prog="benches/lab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of load per round and subject, after one to warm up")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--only", type=lambda text: text.split(","), help="subjects, separated by commas")
    parser.add_argument("--subject-cpu", type=int, default=0)
    parser.add_argument("--load-cpu", type=int, default=1)
    parser.add_argument("--programs", type=pathlib.Path, metavar="DIR", help="measure weft and weft-proxy from there, as they are")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def main():
    options = arguments()
    for program in ("wrk", "nginx"):
        if not shutil.which(program):
            sys.exit(f"benches/lab: needs {program} (Debian package {program})")
    if not options.programs:
        build = ["cargo", "build", "--release", "-p", "weft-proxy", "-p", "weft-control-plane"]
        subprocess.run(build, cwd=ROOT, check=True)
    with contextlib.ExitStack() as stack:
        scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weft-lab-")))
        # Unprivileged workers read it.
        scratch.chmod(0o755)
        place = processes.Place(stack, scratch, options.subject_cpu, options.load_cpu)
        application = peers.application(place)
        wanted = lambda name: options.only is None or name in options.only
        subjects = weft.subjects(place, application, options.programs or ROOT / "target/release", wanted)
        subjects += peers.subjects(place, application, wanted)
        if not subjects:
            sys.exit("benches/lab: no such subject")
        idle = {subject.name: subject.memory() for subject in subjects}
        samples = measure(place, subjects, options)
        after = {subject.name: subject.memory() for subject in subjects}
    report(subjects, samples, idle, after, options)


def measure(place, subjects, options):
    samples = {subject.name: [] for subject in subjects}
    for number in range(options.rounds):
        for subject in subjects:
            print(f"round {number + 1} of {options.rounds}: {subject.name}", file=sys.stderr)
            load.run(place, subject, 1, options.connections)
            samples[subject.name].append(load.run(place, subject, options.seconds, options.connections))
    return samples


# What stands in a table, how it is called, and how it is written.
COLUMNS = [("cpu_us", "us/req", ".1f"), ("user_us", "user", ".1f"), ("rate", "req/s", ",.0f"), ("busy", "busy", ".2f"),
           ("p50_us", "p50 us", ".0f"), ("p99_us", "p99 us", ".0f"), ("foreign", "foreign", ".2f")]


def report(subjects, samples, idle, after, options):
    print(f"\n{options.connections} connections, 1 KiB answers, {options.rounds} rounds of {options.seconds} s; "
          "medians, and in brackets the smallest and largest us/req")
    for hops in sorted({subject.hops for subject in subjects}):
        group = [subject for subject in subjects if subject.hops == hops]
        table(group, samples, idle, after, hops)
    failed = sum(sample["failed"] for runs in samples.values() for sample in runs)
    print(f"\nfailed requests: {failed}")
    if options.json:
        options.json.write_text(json.dumps({"samples": samples, "idle": idle, "after": after}, indent=1) + "\n")
    sys.exit(1 if failed else 0)


def table(group, samples, idle, after, hops):
    median = lambda name, key: statistics.median(sample[key] for sample in samples[name])
    baseline = next((subject.name for subject in group if subject.is_baseline), None)
    heading = ["plain, one proxy" if hops == 1 else "mutual TLS, two proxies", *(title for _, title, _ in COLUMNS),
               "us/req range", "vs nginx", "RSS MiB", "after"]
    rows = []
    for subject in group:
        name = subject.name
        costs = [sample["cpu_us"] for sample in samples[name]]
        ratio = f"{median(name, 'cpu_us') / median(baseline, 'cpu_us'):.2f}" if baseline else "-"
        rows.append([name, *(format(median(name, key), shape) for key, _, shape in COLUMNS),
                     f"({min(costs):.1f}-{max(costs):.1f})", ratio, f"{idle[name]['rss']:.1f}", f"{after[name]['rss']:.1f}"])
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(len(heading))]
    print()
    for row in [heading, *rows]:
        print("  ".join(cell.ljust(width) if column == 0 else cell.rjust(width)
                        for column, (cell, width) in enumerate(zip(row, widths))))


if __name__ == "__main__":
    main()
