"""What a chaos run plays on: PostgreSQL, the proxy before it, and the server under test, in a
temporary folder."""
import datetime
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

from harness import processes
from harness.cluster import Cluster
from harness.processes import Failed
from harness.servers import ROOT

POOL_MAX, WORKERS = 9, 3
ROLE = "moonpool"
HERE = os.path.dirname(os.path.abspath(__file__))
SERVER_FLAGS = ["--workers", str(WORKERS), "--pool-max", str(POOL_MAX), "--deadline", "2s",
                "--lua-memory", "96MiB", "--log-level", "warn"]
PREPARE = """
create role {role} login password '{password}';
create database {role} owner {role};
"""


class Database(Cluster):
    def start(self):
        super().start()
        self.sql(PREPARE.format(role=ROLE, password=self.password), database="postgres")

    def rows(self, text):
        return self.sql(text, database=ROLE)

    def restart(self, how):
        processes.stop(self.child, how)
        self.launch()

    def backends(self):
        """The processes of the server's sessions."""
        rows = self.rows(f"select pid from pg_stat_activity where usename = '{ROLE}';")
        return sorted(int(pid) for pid, in rows)


class Proxy:
    def __init__(self, folder, port):
        program = os.path.join(ROOT, "spec/support/pg_proxy.py")
        log = os.path.join(folder, "proxy.log")
        self.child = processes.start([sys.executable, program, "127.0.0.1", str(port)], log)
        line = first_match(log, r"listening (\d+) (\d+)", self.child)
        self.port, control = int(line[1]), int(line[2])
        self.control = socket.create_connection(("127.0.0.1", control), timeout=20)
        self.answers = self.control.makefile("r")

    def order(self, *words):
        self.control.sendall((" ".join(str(word) for word in words) + "\n").encode())
        return self.answers.readline().strip()

    def stop(self):
        self.control.close()
        processes.stop(self.child)


class Server:
    def __init__(self, folder, moonpool, url):
        self.folder = folder
        self.log = os.path.join(folder, "server.log")
        self.reports = os.path.join(folder, "sanitizer")
        os.makedirs(self.reports)
        shutil.copytree(os.path.join(ROOT, "scripts"), os.path.join(folder, "scripts"))
        shutil.copytree(os.path.join(ROOT, "sql"), os.path.join(folder, "sql"))
        shutil.copy(os.path.join(HERE, "scripts/chaos.lua"), os.path.join(folder, "scripts"))
        self.env = {"DATABASE_URL": url, **sanitizer_environment(self.reports)}
        self.moonpool = os.path.abspath(moonpool)
        self.port, self.admin_port = processes.free_port(), processes.free_port()
        self.killed = set()  # workers that we killed
        self.child = None

    def start(self):
        subprocess.run([self.moonpool, "migrate", "--sql", "sql"], cwd=self.folder, check=True,
                       env={**os.environ, **self.env}, capture_output=True, timeout=60)
        addresses = ["--listen", f"127.0.0.1:{self.port}",
                     "--admin-listen", f"127.0.0.1:{self.admin_port}"]
        self.child = processes.start([self.moonpool, "serve", *SERVER_FLAGS, *addresses],
                                     self.log, self.env, cwd=self.folder)
        processes.wait_until(self.is_ready, 30, "the server's readiness")

    def is_ready(self):
        return get(self.admin_port, "/readyz")[0] == 200

    def metrics(self):
        text = get(self.admin_port, "/metrics")[1]
        return {name: float(value)
                for name, value in re.findall(r"^moonpool_(\w+) (\S+)$", text, re.MULTILINE)}

    def workers(self):
        return sorted(pid for pid in processes.tree(self.child.pid) if pid != self.child.pid)

    def kill_worker(self, pid):
        self.killed.add(pid)
        os.kill(pid, signal.SIGKILL)

    def write(self, path, text):
        """As careful editors do: a new file takes the old one's place."""
        path = os.path.join(self.folder, path)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path + ".new", path)

    def read(self, path):
        with open(os.path.join(self.folder, path), encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self):
        processes.stop(self.child)


class Stage:
    def __init__(self, folder, moonpool):
        self.database = Database(folder)
        self.diary = os.path.join(folder, "faults.log")
        try:
            self.database.start()
            self.proxy = Proxy(folder, self.database.port)
            url = (f"postgresql://{ROLE}:{self.database.password}@127.0.0.1:{self.proxy.port}"
                   f"/{ROLE}")
            self.server = Server(folder, moonpool, url)
            self.server.start()
        except BaseException:
            self.stop()
            raise

    def note(self, fault):
        """Keeps a diary, to be read beside the server's log."""
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
        with open(self.diary, "a", encoding="utf-8") as file:
            file.write(f"{now} {fault}\n")

    def stop(self):
        for part in ("server", "proxy", "database"):
            if hasattr(self, part) and getattr(self, part).child:
                getattr(self, part).stop()


def sanitizer_environment(folder):
    path = os.path.join(folder, "report")
    return {"ASAN_OPTIONS": f"detect_leaks=1:detect_stack_use_after_return=1:log_path={path}",
            "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:log_path={path}"}


def first_match(path, pattern, child):
    found = []

    def look():
        if child.poll() is not None:
            raise Failed(f"it ended by itself; see {path}")
        with open(path, encoding="utf-8", errors="replace") as file:
            found[:] = [re.search(pattern, file.read())]
        return found[0]
    processes.wait_until(look, 20, f"'{pattern}' in {path}")
    return found[0]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()
