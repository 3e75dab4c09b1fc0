"""The faults of a chaos run. Each breaks something, and has mended it when it returns, but for what
only the server under test can mend. They run beside the clients' loop, in a thread."""
import os
import signal
import time

from harness import processes
from harness.processes import Failed

from stage import ROLE

BROKEN_SCRIPT = "local app = require 'moonpool' app.get('/never', function( end)\n"


def pick_backend(stage, random):
    backends = stage.database.backends()
    return random.choice(backends) if backends else None


def signal_backend(stage, random, number):
    pid = pick_backend(stage, random)
    if pid and processes.parents().get(pid) == stage.database.pid:
        os.kill(pid, number)
        return pid
    return None


def kill_backend(stage, random):
    """PostgreSQL ends all other sessions too, and recovers."""
    signal_backend(stage, random, signal.SIGKILL)


def terminate_backend(stage, random):
    signal_backend(stage, random, signal.SIGTERM)


def stop_backend(stage, random):
    pid = signal_backend(stage, random, signal.SIGSTOP)
    if pid:
        time.sleep(random.uniform(0.1, 0.8))
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass  # PostgreSQL has ended it


def stop_postmaster(stage, random):
    pid = stage.database.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(random.uniform(0.2, 1))
    os.kill(pid, signal.SIGCONT)


def restart_fast(stage, random):
    stage.database.restart(signal.SIGINT)


def restart_immediate(stage, random):
    stage.database.restart(signal.SIGQUIT)


def break_message(stage, random):
    """A fault of the proxy at some message of some transaction."""
    kind = random.choice(["cut", "reset", "stall", "corrupt", "delay:50"])
    trigger = random.choice(["any", "connect", "sql begin", "sql commit", "sql insert into users"])
    stage.proxy.order("arm", kind, random.choice(["forth", "back"]), random.randint(1, 40), trigger)
    time.sleep(random.uniform(0.2, 1))
    stage.proxy.order("release")
    stage.proxy.order("disarm")


def cut_network(stage, random):
    stage.proxy.order("cut")


def freeze_network(stage, random):
    stage.proxy.order("freeze")
    time.sleep(random.uniform(0.1, 1))
    stage.proxy.order("thaw")


def refuse_sessions(stage, random):
    stage.proxy.order("refuse")
    stage.proxy.order("cut")
    time.sleep(random.uniform(0.1, 1))
    stage.proxy.order("accept")


def limit_sessions(stage, random):
    """Too many clients: PostgreSQL lets in two."""
    stage.database.rows(f"alter role {ROLE} connection limit 2;")
    stage.proxy.order("cut")
    time.sleep(random.uniform(0.3, 1.5))
    stage.database.rows(f"alter role {ROLE} connection limit -1;")


def kill_worker(stage, random):
    workers = stage.server.workers()
    if workers:
        stage.server.kill_worker(random.choice(workers))


def reload(stage, random):
    os.kill(stage.server.child.pid, signal.SIGHUP)


def save_script(stage, random):
    text = stage.server.read("scripts/chaos.lua")
    stage.server.write("scripts/chaos.lua", f"{text.rstrip()} -- {random.randint(0, 9)}\n")


def break_script(stage, random):
    stage.server.write("scripts/broken.lua", BROKEN_SCRIPT)
    time.sleep(random.uniform(0.5, 1.5))
    os.remove(os.path.join(stage.server.folder, "scripts/broken.lua"))


FAULTS = [kill_backend, terminate_backend, stop_backend, stop_postmaster, restart_fast,
          restart_immediate, break_message, break_message, break_message, break_message,
          cut_network, freeze_network, refuse_sessions, limit_sessions, kill_worker, reload,
          save_script, break_script]


def play(stage, random, until):
    """One fault after the other; gives how often there was each."""
    names = []
    while time.monotonic() < until:
        fault = random.choice(FAULTS)
        names.append(fault.__name__)
        stage.note(fault.__name__)
        try:
            fault(stage, random)
        except (Failed, ProcessLookupError):
            names.append("none")  # what it was to break was gone already
        time.sleep(random.uniform(0.1, 0.8))
    return names


def mend(stage):
    """What a fault that could not come to its end has left."""
    stage.proxy.order("release")
    stage.proxy.order("disarm")
    processes.wait_until(lambda: unlimited(stage), 30, "PostgreSQL's return", 0.1)


def unlimited(stage):
    try:
        stage.database.rows(f"alter role {ROLE} connection limit -1;")
        return True
    except Failed:
        return False
