"""The workloads W1 to W5 and memory: which cases there are, and how one subject is measured in one."""
import contextlib
import glob
import math
import os
import time
from collections import Counter
from dataclasses import dataclass, field

from . import books, load, processes
from .idle import IdleConnections
from .servers import ROOT, Server, Setting

POOL = 8  # database connections of a server
READ_USERS = 1000
LIST_CLIENTS = 8
STORM_CLIENTS = 200
STORM_WARM_CREATES = 16

# Creates of one round of W1, after which the table is made anew: few enough that N stays about N.
ROUND_CREATES = {10: 40, 100: 60, 1000: 100, 10000: 24}


@dataclass(frozen=True)
class Case:
    """One row of tables: a workload with its numbers, and the function that measures a subject."""
    workload: str
    title: str
    numbers: dict
    measure: callable
    once: bool = False  # shows where a curve leads, and is not worth all repetitions


@dataclass
class Plan:
    """How much is done: all of it, or the quick selection."""
    creates: list  # of (users, clients)
    read_clients: list
    seconds: float  # of a measurement
    warm_seconds: float
    storm_seconds: float
    idle_counts: list  # of idle connections
    settle_seconds: float  # between a load and the look at the memory afterwards
    load_creates: int  # of that load
    rounds: int  # at most, of W1
    repetitions: int


FULL = Plan([(n, c) for n in (10, 100, 1000, 10000) for c in (1, 8)], [64, 256], 4, 1, 10,
            [1000, 10000], 3, 100, 20, 3)
QUICK = Plan([(10, 1), (100, 8)], [64], 1, 1, 2, [1000], 1, 16, 4, 1)


@dataclass
class Run:
    """What all measurements share."""
    cluster: object
    folder: str
    build: str
    moonpool: str
    workers: int
    plan: Plan
    starts: dict = field(default_factory=dict)  # subject -> milliseconds to the first answer
    commands: dict = field(default_factory=dict)  # subject, workload -> command lines

    def setting(self, workload, pool):
        return Setting(self.folder, self.build, self.moonpool, self.cluster.url(), self.workers,
                       pool, workload)

    @contextlib.contextmanager
    def serve(self, subject, workload, pool):
        with Server(subject, self.setting(workload, pool)) as server:
            if workload != "W4":
                self.starts.setdefault(subject.name, []).append(server.start_ms)
            self.note(subject, workload, server.argv, server.env)
            yield server

    def note(self, subject, workload, argv, env=None):
        """Keeps a command line to be printed, without the password and the paths of this machine."""
        words = [f"{name}={value}" for name, value in (env or {}).items()] + argv
        line = " ".join(words).replace(self.cluster.password, "PASSWORD")
        line = line.replace(self.folder, "FOLDER").replace(f"{ROOT}/", "")
        self.commands.setdefault((subject.name, workload), line)


class Meter:
    """CPU seconds of a server and of PostgreSQL over the parts that count."""

    def __init__(self, cluster, server_pid):
        self.pids = {"app_cpu": server_pid, "pg_cpu": cluster.pid}
        self.used = dict.fromkeys(self.pids, 0.0)

    @contextlib.contextmanager
    def running(self):
        before = self._read()
        yield
        after = self._read()
        for name, value in after.items():
            self.used[name] += value - before[name]

    def _read(self):
        return {name: processes.cpu_seconds(pid) for name, pid in self.pids.items() if pid}

    def per_request(self, requests):
        """In microseconds. What has no process of its own has no figure."""
        return {f"{name}_us": self.used[name] / requests * 1e6 if pid and requests else None
                for name, pid in self.pids.items()}


def percentile(values, share):
    """Nearest rank; `values` are sorted."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


def latencies(samples):
    values = sorted(sample.microseconds / 1e3 for sample in samples)
    return {"p50_ms": percentile(values, 0.5), "p99_ms": percentile(values, 0.99),
            "max_ms": values[-1] if values else None}


def create_figures(samples, seconds):
    good = [sample for sample in samples if sample.good]
    return {"requests": len(good), "rate": len(good) / seconds, "failures": len(samples) - len(good),
            **latencies(good)}


@contextlib.contextmanager
def create_rounds(run, subject, workload, clients):
    """The load program, and the pid of the server if it has one."""
    if subject.kind == "limit":
        with load.limit_rounds(run.build, subject.options["update"], run.cluster.url(),
                               clients) as rounds:
            run.note(subject, workload, rounds.child.args)
            yield rounds, None
    else:
        with run.serve(subject, workload, POOL) as server, \
                load.http_rounds(run.build, server.port, clients) as rounds:
            yield rounds, server.pid


def measure_create(run, subject, users, clients):
    """W1, in rounds, so that there are always about `users`."""
    run.cluster.reset(users)
    with create_rounds(run, subject, "W1", clients) as (rounds, pid):
        rounds.count(clients, "warm")
        meter = Meter(run.cluster, pid)
        played, faults = [], []
        while len(played) < run.plan.rounds and played_seconds(played) < run.plan.seconds:
            run.cluster.reset(users)
            with meter.running():
                played.append(rounds.count(ROUND_CREATES[users], "u"))
            faults += books.check(run.cluster, users, played[-1].samples)
    return create_result(played, faults, meter)


def played_seconds(played):
    return sum(one.seconds for one in played)


def create_result(played, faults, meter):
    samples = [sample for one in played for sample in one.samples]
    result = create_figures(samples, played_seconds(played))
    result.update(meter.per_request(result["requests"]), faults=faults)
    if result["app_cpu_us"] is None and result["requests"]:
        used = sum(one.cpu_seconds for one in played)
        result["app_cpu_us"] = used / result["requests"] * 1e6
    return result


def measure_storm(run, subject):
    """W5. The rate is of the successes in the time in which creates began."""
    seconds = run.plan.storm_seconds
    run.cluster.reset(READ_USERS)
    with create_rounds(run, subject, "W5", STORM_CLIENTS) as (rounds, pid):
        rounds.count(STORM_WARM_CREATES, "warm")
        run.cluster.reset(READ_USERS)
        meter = Meter(run.cluster, pid)
        with meter.running():
            storm = rounds.seconds(seconds, "u")
        faults = books.check(run.cluster, READ_USERS, storm.samples)
    result = create_figures(storm.samples, seconds)
    statuses = Counter(sample.status for sample in storm.samples)
    result.update(meter.per_request(result["requests"]), faults=faults,
                  statuses={str(status): count for status, count in sorted(statuses.items())},
                  all_answers=latencies(storm.samples))
    return result


def measure_get(run, subject, workload, path, clients, ids=None):
    """W2, W3 and W4 by wrk."""
    run.cluster.reset(READ_USERS)
    with run.serve(subject, workload, subject.options.get("read_pool", POOL)) as server:
        warm = load.wrk_command(server.port, path, clients, math.ceil(run.plan.warm_seconds), ids)
        load.wrk(warm, run.plan.warm_seconds)
        meter = Meter(run.cluster, server.pid)
        with meter.running():
            argv = load.wrk_command(server.port, path, clients, run.plan.seconds, ids)
            result = load.wrk(argv, run.plan.seconds)
    result.update(meter.per_request(result["requests"]))
    return result


def measure_pgbench(run, subject, clients):
    """The limit of W2: pgbench on its own tables."""
    log = os.path.join(run.folder, "pgbench")
    argv = load.pgbench_command(run.cluster.url("pgbench"), clients, run.plan.seconds, log)
    run.note(subject, "W2", argv)
    meter = Meter(run.cluster, None)
    with meter.running():
        result = load.pgbench(argv, run.plan.seconds, run.folder)
    result.update(pgbench_latencies(log), **meter.per_request(result["requests"]))
    return result


def pgbench_latencies(log):
    samples = []
    for path in glob.glob(f"{log}.*"):
        with open(path, encoding="ascii") as file:
            samples += [load.Sample(200, int(line.split()[2]), "") for line in file]
        os.remove(path)
    return latencies(samples)


def measure_user(run, subject, clients):
    if subject.kind == "pgbench":
        return measure_pgbench(run, subject, clients)
    return measure_get(run, subject, "W2", "/", clients, READ_USERS)


def measure_list(run, subject):
    return measure_get(run, subject, "W3", "/users", LIST_CLIENTS)


def measure_ping(run, subject, clients):
    return measure_get(run, subject, "W4", "/ping", clients)


def private_mb(server):
    return processes.private_memory(server.pid)[0] / 1e6


def measure_memory(run, subject):
    """Private memory of all processes of a server: idle, with idle connections; another one's after
    load."""
    run.cluster.reset(READ_USERS)
    with run.serve(subject, "memory", POOL) as server:
        time.sleep(1)
        result = {"idle_mb": private_mb(server), "start_ms": server.start_ms,
                  "processes": processes.private_memory(server.pid)[1]}
        try:
            result.update(with_connections(run, server, result["idle_mb"]))
        except processes.Failed as reason:
            result["connections_failed"] = str(reason)
    with run.serve(subject, "memory", POOL) as server:
        make_load(run, server)
        time.sleep(run.plan.settle_seconds)
        result["after_load_mb"] = private_mb(server)
    return result


def with_connections(run, server, idle_mb):
    result = {}
    with IdleConnections(server.port, server.path) as connections:
        for count in run.plan.idle_counts:
            connections.grow_to(count)
            time.sleep(1)
            connections.check_alive()
            used = private_mb(server)
            result[f"connections_{count}_mb"] = used
            result["connection_kb"] = (used - idle_mb) / count * 1e3
    return result


def make_load(run, server):
    ids = READ_USERS if server.path != "/ping" else None
    argv = load.wrk_command(server.port, "/ping" if ids is None else "/", 64, run.plan.seconds, ids)
    load.wrk(argv, run.plan.seconds)
    if ids:
        with load.http_rounds(run.build, server.port, 8) as rounds:
            rounds.count(run.plan.load_creates, "u")


def all_cases(plan):
    cases = [Case("W1", f"W1: create a user among {users:,}, {clients_text(clients)}",
                  {"users": users, "clients": clients}, measure_create, once=users != READ_USERS)
             for users, clients in plan.creates]
    cases += [Case("W2", f"W2: GET /users/{{id}}, {clients_text(clients)}", {"clients": clients},
                   measure_user) for clients in plan.read_clients]
    cases.append(Case("W3", f"W3: GET /users with {READ_USERS:,} users, {clients_text(LIST_CLIENTS)}",
                      {}, measure_list))
    cases += [Case("W4", f"W4: a route without database, {clients_text(clients)}",
                   {"clients": clients}, measure_ping) for clients in plan.read_clients]
    cases.append(Case("W5", f"W5: creates among {READ_USERS:,}, {clients_text(STORM_CLIENTS)}, "
                      f"a pool of {POOL}, {plan.storm_seconds} s", {}, measure_storm))
    cases.append(Case("memory", "Memory and start", {}, measure_memory))
    return cases


def clients_text(count):
    return "1 client" if count == 1 else f"{count} clients"
