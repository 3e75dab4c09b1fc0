"""The private PostgreSQL of a run: default settings but for max_connections, in a temporary folder,
and the tables of the sample application in it."""
import os
import secrets
import shutil
import signal
import subprocess

from . import processes
from .processes import Failed

BIN = "/usr/lib/postgresql/15/bin"
SETTINGS = {"max_connections": "400"}  # all else is PostgreSQL's default, fsync on included
PGBENCH_SCALE = 10

RESET = """
truncate users, user_profile, actions restart identity;
insert into users (username, score) select 'user_' || i, i % 997 from generate_series(1, {n}) i;
insert into user_profile select id, 'First', 'Last' from users;
vacuum analyze users, user_profile, actions;
checkpoint;
"""


def first_score(user_id):
    """The score that RESET gives."""
    return float(user_id % 997)


class Cluster:
    def __init__(self, folder):
        self.folder = os.path.join(folder, "postgres")
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(folder, "postgres.log")
        self.owner = "postgres" if os.geteuid() == 0 else None
        self.password = secrets.token_hex(16)
        self.port = processes.free_port()
        self.child = None

    def start(self):
        self._create()
        self.launch()
        self.sql("create database bench;", database="postgres")

    def launch(self):
        """Starts PostgreSQL; restarts it, if it was stopped."""
        flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
        self.child = processes.start(
            [f"{BIN}/postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1", "-k", "",
             *flags], self.log, user=self.owner, cwd=self.folder)
        processes.wait_until(self._answers, 30, f"PostgreSQL's start (log: {self.log})", 0.1)

    def stop(self):
        if self.child:
            processes.stop(self.child, signal.SIGINT)

    @property
    def pid(self):
        return self.child.pid

    def url(self, database="bench"):
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="bench"):
        """Runs statements and gives the rows of their results, as lists of strings."""
        done = subprocess.run(
            ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", self.url(database)], input=text,
            capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise Failed(f"psql: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def reset(self, users):
        """Makes the tables hold exactly so many users, vacuumed, with nothing left to write."""
        self.sql(RESET.format(n=users))

    def prepare_pgbench(self, quick):
        self.sql("create database pgbench;", database="postgres")
        scale = 1 if quick else PGBENCH_SCALE
        subprocess.run([f"{BIN}/pgbench", "-i", "-q", "-s", str(scale), self.url("pgbench")],
                       check=True, capture_output=True, timeout=300)

    def _create(self):
        os.makedirs(self.folder)
        password = os.path.join(self.folder, "password")
        with open(password, "w", encoding="ascii", opener=private_opener) as file:
            file.write(self.password)
        if self.owner:
            shutil.chown(self.folder, self.owner)
            shutil.chown(password, self.owner)
        subprocess.run(
            [f"{BIN}/initdb", "-D", self.data, "-U", "postgres", f"--pwfile={password}",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"],
            check=True, capture_output=True, user=self.owner, group=self.owner, cwd=self.folder,
            extra_groups=[] if self.owner else None, timeout=120)

    def _answers(self):
        if self.child.poll() is not None:
            raise Failed(f"PostgreSQL did not start; see {self.log}")
        try:
            return self.sql("select 1;", database="postgres") == [["1"]]
        except Failed:
            return False


def private_opener(path, flags):
    return os.open(path, flags, 0o600)
