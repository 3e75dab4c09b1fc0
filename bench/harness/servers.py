"""How each server is started, on free ports, and when it is ready."""
import http.client
import os
import time
from dataclasses import dataclass

from . import processes
from .processes import Failed

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
START_SECONDS = 20


@dataclass
class Setting:
    """What a server is to run with: the same for all of them."""
    folder: str  # for temporary files
    build: str  # folder of what was built for the benchmark
    moonpool: str  # the program
    database: str
    workers: int
    pool: int
    workload: str


def moonpool_command(subject, setting, port):
    scripts = "bench/scripts" if setting.workload == "W4" else subject.options["scripts"]
    argv = [setting.moonpool, "serve", "--listen", f"127.0.0.1:{port}", "--admin-listen",
            "127.0.0.1:0", "--workers", str(setting.workers), "--pool-max", str(setting.pool),
            "--scripts", os.path.join(ROOT, scripts),
            "--sql", os.path.join(ROOT, subject.options["sql"]),
            "--log-level", "warn", *subject.options["flags"]]
    return argv, {"DATABASE_URL": setting.database}


def go_command(subject, setting, port):
    env = {"DATABASE_URL": setting.database, "LISTEN": f"127.0.0.1:{port}",
           "POOL_MAX": str(setting.pool), "GOMAXPROCS": str(setting.workers),
           "UPDATE": subject.options["update"]}
    return [os.path.join(setting.build, "go-server")], env


def node_command(subject, setting, port):
    env = {"DATABASE_URL": setting.database, "LISTEN": f"127.0.0.1:{port}",
           "POOL_MAX": str(setting.pool), "WORKERS": str(setting.workers),
           "NODE_ENV": "production"}
    return ["node", os.path.join(setting.build, "node", "server.js")], env


def nginx_command(subject, setting, port):
    config = os.path.join(setting.folder, "nginx.conf")
    with open(os.path.join(ROOT, "bench/peers/nginx/nginx.conf"), encoding="utf-8") as file:
        text = file.read()
    user = "user www-data;" if os.geteuid() == 0 else ""
    for name, value in (("USER", user), ("WORKERS", setting.workers), ("FOLDER", setting.folder),
                        ("LISTEN", f"127.0.0.1:{port}")):
        text = text.replace(f"@{name}@", str(value))
    with open(config, "w", encoding="utf-8") as file:
        file.write(text)
    return ["nginx", "-e", "stderr", "-p", setting.folder, "-c", config], {}


COMMANDS = {"moonpool": moonpool_command, "go": go_command, "node": node_command,
            "nginx": nginx_command}


def first_path(subject, setting):
    """What a server must answer to be ready: from the database, if it has one."""
    return "/ping" if setting.workload == "W4" or subject.kind == "nginx" else "/users/1"


class Server:
    """A running server; leaving the `with` ends it."""

    def __init__(self, subject, setting):
        self.path = first_path(subject, setting)
        self.port = processes.free_port()
        self.log = os.path.join(setting.folder, f"{subject.name}.log")
        self.argv, self.env = COMMANDS[subject.kind](subject, setting, self.port)

    def __enter__(self):
        begin = time.monotonic()
        self.child = processes.start(self.argv, self.log, self.env)
        try:
            processes.wait_until(self._answers, START_SECONDS, "a first answer", 0.0005)
        except BaseException:
            processes.stop(self.child)
            raise
        self.start_ms = (time.monotonic() - begin) * 1000
        return self

    def __exit__(self, *_):
        processes.stop(self.child)

    @property
    def pid(self):
        return self.child.pid

    def _answers(self):
        if self.child.poll() is not None:
            raise Failed(f"it ended by itself: {last_line(self.log)}")
        return get_status(self.port, self.path) == 200


def get_status(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def last_line(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return lines[-1] if lines else "it said nothing"
