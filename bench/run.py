#!/usr/bin/env python3
"""The benchmark: measures Moonpool, its peers and the limits side by side. ./dev bench calls it;
bench/README.md explains the workloads and how to read the tables."""
import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the sources stay as they are

from harness import build, machine, plot, processes, report, workloads
from harness.cluster import SETTINGS, Cluster
from harness.processes import Failed
from harness.servers import ROOT
from subjects import BASE, SUBJECTS


def parse_arguments():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.split(":")[0])
    parser.add_argument("--quick", action="store_true",
                        help="a selection, once, in less than two minutes: to see that it works")
    parser.add_argument("--only", type=names, help="workloads, as in W1,W2,memory")
    parser.add_argument("--match", default="", help="cases whose titles contain this, as in 1,000")
    parser.add_argument("--subjects", type=names, help="subjects, as in moonpool,go")
    parser.add_argument("--repetitions", type=int, help="of each measurement")
    parser.add_argument("--seconds", type=int, help="that a measurement takes")
    parser.add_argument("--workers", type=int, default=os.cpu_count(),
                        help="processes or threads of each server (default: one per processor)")
    parser.add_argument("--output", help="folder of the results")
    parser.add_argument("--moonpool", default=os.path.join(ROOT, "build/moonpool"))
    parser.add_argument("--build", default=os.path.join(ROOT, "build-bench"))
    return check_names(parser, parser.parse_args())


def names(text):
    return text.split(",")


def check_names(parser, arguments):
    known = {subject.name for subject in SUBJECTS}
    for name in arguments.subjects or []:
        if name not in known:
            parser.error(f"unknown subject '{name}'; there are: {', '.join(sorted(known))}")
    known = {workload for subject in SUBJECTS for workload in subject.workloads}
    for name in arguments.only or []:
        if name not in known:
            parser.error(f"unknown workload '{name}'; there are: {', '.join(sorted(known))}")
    return arguments


def make_plan(arguments):
    plan = workloads.QUICK if arguments.quick else workloads.FULL
    changes = {name: getattr(arguments, name) for name in ("repetitions", "seconds")
               if getattr(arguments, name)}
    return dataclasses.replace(plan, **changes)


def chosen_subjects(arguments):
    return [subject for subject in SUBJECTS
            if not arguments.subjects or subject.name in arguments.subjects]


def chosen_cases(arguments, plan):
    return [case for case in workloads.all_cases(plan)
            if (not arguments.only or case.workload in arguments.only)
            and arguments.match in case.title]


def say(words):
    print(f"==> {words}", file=sys.stderr, flush=True)


def measure_one(run, case, subject):
    """One repetition, or None and why there is none."""
    try:
        return case.measure(run, subject, **case.numbers), None
    except (Failed, OSError) as reason:
        say(f"{subject.name}: {reason}")
        return None, str(reason)


def measure_case(run, case, subjects, missing):
    """All subjects in turn, and that as often as there are repetitions. One that fails is given up."""
    entries = {subject.name: {"kind": subject.kind, "repetitions": []} for subject in subjects}
    repetitions = 1 if case.once else run.plan.repetitions
    for repetition in range(repetitions):
        for subject in subjects:
            entry = entries[subject.name]
            if subject.kind in missing:
                entry["not_run"] = missing[subject.kind]
            if "not_run" not in entry:
                say(f"{case.title} | {subject.name} | {repetition + 1}/{repetitions}")
                result, reason = measure_one(run, case, subject)
                if result:
                    entry["repetitions"].append(result)
                else:
                    entry["not_run"] = reason
    for entry in entries.values():
        if "not_run" not in entry:
            entry["summary"] = report.summarise(entry["repetitions"])
    return {"workload": case.workload, "title": case.title, "numbers": case.numbers,
            "subjects": entries}


def measure_all(run, cases, subjects, missing):
    results = []
    for case in cases:
        taking_part = [subject for subject in subjects if case.workload in subject.workloads]
        if taking_part:
            results.append(measure_case(run, case, taking_part, missing))
            add_starts(run, results[-1])
            report.print_case(results[-1], BASE)
            sys.stdout.flush()
    return results


def add_starts(run, result):
    """The start of a server is measured each time there is one: the median is of all of them."""
    if result["workload"] == "memory":
        for name, entry in result["subjects"].items():
            if "summary" in entry:
                entry["summary"]["start_ms"] = report.median(run.starts[name])


def write_results(results, folder, name):
    os.makedirs(folder, exist_ok=True)
    base = os.path.join(folder, name)
    with open(f"{base}.json", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(f"{base}.svg", "w", encoding="utf-8") as file:
        file.write(plot.svg(results, BASE))
    print(f"\nwritten: {base}.json and {base}.svg")


def result_place(arguments, date):
    """A quick run is no result: it does not go where results are kept."""
    if arguments.quick:
        return arguments.output or arguments.build, "quick"
    return arguments.output or os.path.join(ROOT, "bench/results"), date


@contextlib.contextmanager
def scratch_folder():
    """A temporary folder that the user postgres, too, can reach."""
    folder = tempfile.mkdtemp(prefix="moonpool-bench.")
    os.chmod(folder, 0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running_cluster(folder, arguments):
    cluster = Cluster(folder)
    try:
        say("Starting a private PostgreSQL")
        cluster.start()
        build.run([arguments.moonpool, "migrate", "--sql", os.path.join(ROOT, "sql")],
                  {"DATABASE_URL": cluster.url()})
        yield cluster
    finally:
        cluster.stop()


def settings_of(arguments, plan):
    postgres = ", ".join(f"{name}={value}" for name, value in SETTINGS.items())
    return {"workers": arguments.workers, "pool": workloads.POOL,
            "repetitions": plan.repetitions, "seconds": plan.seconds, "quick": arguments.quick,
            "PostgreSQL": f"defaults but {postgres}"}


def run_all(arguments, folder, missing, subjects):
    plan = make_plan(arguments)
    date = datetime.date.today().isoformat()
    settings, about = settings_of(arguments, plan), machine.describe(arguments.moonpool)
    cases = chosen_cases(arguments, plan)
    report.print_head(about, settings, missing)
    with running_cluster(folder, arguments) as cluster:
        if any(subject.kind == "pgbench" for subject in subjects):
            cluster.prepare_pgbench(arguments.quick)
        run = workloads.Run(cluster, folder, arguments.build, arguments.moonpool,
                            arguments.workers, plan)
        measured = measure_all(run, cases, subjects, missing)
    commands = [f"{name}, {workload}: {text}" for (name, workload), text in run.commands.items()]
    report.print_tail(commands, BASE)
    results = {"date": date, "machine": about, "settings": settings, "not_run": missing,
               "subjects": {subject.name: subject.about for subject in subjects},
               "cases": measured, "starts_ms": run.starts, "commands": commands}
    write_results(results, *result_place(arguments, date))


def end_by_signal(number, _):
    sys.exit(128 + number)


def main():
    arguments = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end_by_signal)
    begin = time.monotonic()
    processes.raise_file_limit()
    subjects = chosen_subjects(arguments)
    say("Building the peers and the load")
    missing = build.build_all(arguments.build, dict.fromkeys(subject.kind for subject in subjects))
    with scratch_folder() as folder:
        run_all(arguments, folder, missing, subjects)
    print(f"took {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
