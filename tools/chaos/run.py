#!/usr/bin/env python3
"""Plays load and faults against the server, with a real PostgreSQL behind a proxy that can break the
connection at any message, and checks the books: nothing acknowledged is lost, nothing is half there,
nothing leaks. ./dev chaos and ./dev soak call it; docs/architecture.md says what it checks."""
import argparse
import asyncio
import collections
import os
import random
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # the sources stay as they are
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))

import books
import faults
from harness import processes
from harness.processes import Failed
from loads import CREATES, READS, TROUBLE, Client, Ledger
from stage import POOL_MAX, Stage

EPOCH = 15  # seconds of load between two looks at the books
RECOVERY = 10  # seconds that the server may take until it serves again
EXCESS = 6  # seconds that PostgreSQL may take to end sessions that were cut off
CLIENTS = 12
REST = 2.5  # seconds in which workers without requests give back what the last ones left
WARM_UP = 0.4  # share of a soak whose memory is not looked at
GROWTH = 0.05, 1 << 20  # that a soak may show: a share, and bytes


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10 ** 6))
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--soak", action="store_true", help="steady load without faults")
    parser.add_argument("--moonpool", default=os.path.join(ROOT, "build-test/moonpool"))
    return parser.parse_args()


class Run:
    def __init__(self, arguments, stage):
        self.arguments = arguments
        self.stage = stage
        self.ledger = Ledger()
        self.random = random.Random(f"{arguments.seed} faults")
        self.faults = collections.Counter()
        self.most_sessions = 0
        self.slowest_recovery = 0.0
        self.memory = []  # private bytes of all workers, one after each epoch
        self.users = 0

    async def play(self):
        end = time.monotonic() + self.arguments.minutes * 60
        epoch = 0
        while time.monotonic() < end:
            epoch += 1
            await self._epoch(epoch, min(end, time.monotonic() + EPOCH))

    async def _epoch(self, number, until):
        self.ledger.begin_epoch()
        await asyncio.to_thread(self.stage.database.rows, books.RESET)
        killed = len(self.stage.server.killed)
        stopping = asyncio.Event()
        clients = [asyncio.create_task(client.run(stopping)) for client in self._clients(number)]
        watch = asyncio.create_task(self._watch_sessions(stopping))
        if self.arguments.soak:
            await asyncio.sleep(until - time.monotonic())
        else:
            await self._break_things(until)
        stopping.set()
        await asyncio.gather(*clients, watch)
        await asyncio.to_thread(self._look, number, killed)

    def _clients(self, epoch):
        kinds = CREATES + READS + ([] if self.arguments.soak else TROUBLE)
        return [Client(number, f"{self.arguments.seed} {epoch}", self.stage.server.port,
                       self.ledger, kinds) for number in range(CLIENTS)]

    async def _break_things(self, until):
        self.faults.update(
            await asyncio.to_thread(faults.play, self.stage, self.random, until))
        await asyncio.to_thread(faults.mend, self.stage)
        begun = time.monotonic()
        before = len(self.ledger.ids)
        while len(self.ledger.ids) == before and time.monotonic() < begun + RECOVERY:
            await asyncio.sleep(0.01)
        took = time.monotonic() - begun
        self.slowest_recovery = max(self.slowest_recovery, took)
        if len(self.ledger.ids) == before:
            self.ledger.find(f"no create in {RECOVERY} s after the last fault was mended: "
                             f"{books.activity(self.stage.database)}")

    async def _watch_sessions(self, stopping):
        """A backend whose connection was cut lives on until it notices: who was cut off cannot know
        for how long."""
        in_order = time.monotonic()
        while not stopping.is_set():
            try:
                count = await asyncio.to_thread(books.sessions, self.stage.database)
            except Failed:
                count = 0  # PostgreSQL is away
            self.most_sessions = max(self.most_sessions, count)
            if count <= POOL_MAX:
                in_order = time.monotonic()
            elif time.monotonic() > in_order + EXCESS:
                self.ledger.find(f"{count} sessions on PostgreSQL, the pool has {POOL_MAX}: "
                                 f"{books.activity(self.stage.database)}")
            await asyncio.sleep(0.3)

    def _look(self, number, killed):
        """The checks at the end of an epoch, when nothing goes on any more."""
        server, ledger = self.stage.server, self.ledger
        try:
            processes.wait_until(lambda: books.pool_is_in_order(self.stage), 15, "a pool in order",
                                 0.1)
        except Failed as failure:
            ledger.find(f"{failure}: {server.metrics()}, on PostgreSQL "
                        f"{books.sessions(self.stage.database)} sessions")
        wrong, count = books.check_users(self.stage.database, ledger.verdicts,
                                         ledger.told)
        self.users += count
        for fault in wrong:
            ledger.find(fault)
        if ledger.broken and len(server.killed) == killed:
            ledger.find(f"connections of clients broke, but no worker was killed: {ledger.broken}")
        if self.arguments.soak:
            time.sleep(REST)
        self.memory.append(sum(memory_of(pid) for pid in server.workers()))
        print(f"epoch {number}: {count} users, {collections.Counter(ledger.verdicts.values())}, "
              f"memory {self.memory[-1] / 1e6:.1f} MB", flush=True)

    def finish(self):
        """What can be said only when the server has ended."""
        server = self.stage.server
        if server.child.poll() is not None:
            self.ledger.find(f"the server ended by itself: {server.child.poll()}")
        server.child.send_signal(signal.SIGTERM)
        if server.child.wait(30) != 0:
            self.ledger.find(f"the server ended with {server.child.returncode}")
        for line in books.check_workers(server):
            self.ledger.find(line)
        for name in sorted(os.listdir(server.reports)):
            self.ledger.find("sanitizer: " + server.read(os.path.join(server.reports, name)))
        if self.arguments.soak:
            self._check_memory()

    def _check_memory(self):
        """Compares the first with the last third of the epochs behind the warm-up."""
        steady = self.memory[int(len(self.memory) * WARM_UP):]
        third = max(1, len(steady) // 3)
        first, last = (sum(part) / third for part in (steady[:third], steady[-third:]))
        print(f"memory of the workers: {first / 1e6:.2f} MB, then {last / 1e6:.2f} MB")
        if last > first * (1 + GROWTH[0]) and last > first + GROWTH[1]:
            self.ledger.find("the memory of the workers grows")

    def report(self):
        ledger = self.ledger
        print("\nfaults:", dict(self.faults))
        for (kind, outcome), count in sorted(ledger.outcomes.items()):
            print(f"  {kind:20} {outcome:28} {count}")
        print(f"users stored {self.users}, most sessions {self.most_sessions} of {POOL_MAX}, "
              f"slowest recovery {self.slowest_recovery:.2f} s, latest answer "
              f"{max(0, ledger.latest):.2f} s past its deadline, workers killed "
              f"{len(self.stage.server.killed)}")
        print(f"seed {self.arguments.seed}: {len(ledger.findings)} findings")


def memory_of(pid):
    try:
        return processes.private_bytes(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has just been killed


def main():
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="moonpool-chaos-")
    os.chmod(folder, 0o711)  # PostgreSQL's user must get through
    print(f"seed {arguments.seed}, in {folder}", flush=True)
    if play_in(folder, arguments):
        sys.exit(1)
    shutil.rmtree(folder)


def play_in(folder, arguments):
    """True if there were findings."""
    stage = Stage(folder, arguments.moonpool)
    try:
        run = Run(arguments, stage)
        asyncio.run(run.play())
        run.finish()
    finally:
        stage.stop()
    run.report()
    return bool(run.ledger.findings)


if __name__ == "__main__":
    main()
