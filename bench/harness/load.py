"""The programs that make load, and the figures they give."""
import os
import subprocess
from dataclasses import dataclass

from .cluster import BIN
from .processes import Failed

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PGBENCH_SAMPLES = "0.05"  # of its transactions, for the percentiles


@dataclass
class Sample:
    status: int  # of HTTP; 0: no answer
    microseconds: int
    username: str

    @property
    def good(self):
        return 200 <= self.status <= 299


@dataclass
class Round:
    seconds: float
    cpu_seconds: float  # of the program that made the load
    samples: list


class Rounds:
    """A program that creates users in rounds: bench/load/rounds.h says how."""

    def __init__(self, argv):
        self.child = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *argv], text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()

    def count(self, creates, prefix):
        return self._play(f"count {creates} {prefix}\n")

    def seconds(self, seconds, prefix):
        return self._play(f"seconds {seconds} {prefix}\n")

    def _play(self, order):
        try:
            self.child.stdin.write(order)
            self.child.stdin.flush()
        except BrokenPipeError:
            raise Failed("the load program ended early") from None
        head = self.child.stdout.readline().split()
        if not head:
            raise Failed("the load program ended early")
        _, elapsed, cpu, count = head
        samples = [self._sample() for _ in range(int(count))]
        return Round(int(elapsed) / 1e6, int(cpu) / 1e6, samples)

    def _sample(self):
        status, microseconds, username = self.child.stdout.readline().split()
        return Sample(int(status), int(microseconds), username)


def http_rounds(build, port, clients):
    return Rounds([os.path.join(build, "create"), "127.0.0.1", str(port), str(clients)])


def limit_rounds(build, update, url, clients):
    return Rounds([os.path.join(build, "create_user"), update, url, str(clients)])


def wrk_command(port, path, clients, seconds, ids=None):
    threads = min(clients, max(1, (os.cpu_count() or 2) // 2))
    argv = ["wrk", f"-t{threads}", f"-c{clients}", f"-d{seconds}s", "--timeout", "5s", "-s",
            os.path.join(HERE, "load/wrk.lua"), f"http://127.0.0.1:{port}{path}"]
    return argv + (["--", str(ids)] if ids else [])


def wrk(argv, seconds):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 30)
    for line in done.stdout.splitlines():
        if line.startswith("figures "):
            return wrk_figures([int(value) for value in line.split()[1:]])
    raise Failed(f"wrk: {(done.stderr or done.stdout).strip()}")


def wrk_figures(values):
    requests, duration, p50, p99, longest, refused, broken = values
    good = requests - refused
    return {"requests": good, "rate": good / (duration / 1e6), "p50_ms": p50 / 1e3,
            "p99_ms": p99 / 1e3, "max_ms": longest / 1e3, "failures": refused + broken}


def pgbench_command(url, clients, seconds, log):
    threads = max(1, (os.cpu_count() or 2) // 2)
    return [f"{BIN}/pgbench", "-S", "-M", "prepared", "-n", "-c", str(clients), "-j", str(threads),
            "-T", str(seconds), "--log", f"--log-prefix={log}",
            f"--sampling-rate={PGBENCH_SAMPLES}", url]


def pgbench(argv, seconds, folder):
    """pgbench's rate does not count the time its connections took; percentiles are of a sample."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60, cwd=folder)
    if done.returncode != 0:
        raise Failed(f"pgbench: {done.stderr.strip()}")
    found = {"failures": 0}
    for line in done.stdout.splitlines():
        if line.startswith("tps ="):
            found["rate"] = float(line.split()[2])
        elif line.startswith("number of transactions actually processed:"):
            found["requests"] = int(line.split()[-1].split("/")[0])
    if "rate" not in found:
        raise Failed("pgbench: no transaction in the time it had")
    return found
