"""Child processes: starting and ending them, and what whole process trees use, read from /proc."""
import os
import random
import resource
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 5


given_ports = set()


class Failed(Exception):
    """Something could not be measured; the message says why."""


def raise_file_limit():
    """Gives us and our children as many file descriptors as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port():
    """A port on loopback that nobody listens on, below the range that clients are given; another one
    each time."""
    for _ in range(100):
        port = random.randrange(20000, 32000)
        if port not in given_ports and can_listen(port):
            given_ports.add(port)
            return port
    raise Failed("no free port between 20000 and 32000")


def can_listen(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start(argv, log, env=None, user=None, cwd=None):
    """Starts a child that dies with us; what it prints goes to the file `log`, which begins anew."""
    with open(log, "wb") as output:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *argv], stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, env={**os.environ, **(env or {})}, user=user, group=user,
            extra_groups=[] if user else None, cwd=cwd)


def stop(child, how=signal.SIGTERM):
    """Ends a child and all below it."""
    family = tree(child.pid)
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    end_orphans(family)


def end_orphans(family):
    """Ends what a child left behind. A pid names the same process only if it began at the same time."""
    for pid, begin in family.items():
        if begun(pid) == begin:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def stat(pid):
    """The fields of /proc/<pid>/stat behind the name, or None if the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def begun(pid):
    fields = stat(pid)
    return fields[19] if fields and fields[0] != "Z" else None


def parents():
    """All processes: pid -> parent's pid."""
    found = {}
    for name in os.listdir("/proc"):
        fields = stat(name) if name.isdigit() else None
        if fields:
            found[int(name)] = int(fields[1])
    return found


def tree(root):
    """A process and all below it: pid -> when it began."""
    of = parents()
    members = {root} & of.keys()
    grown = True
    while grown:
        more = {pid for pid, parent in of.items() if parent in members} - members
        members |= more
        grown = bool(more)
    return {pid: begun(pid) for pid in members}


def cpu_seconds(root):
    """What a process tree has used, with its dead children that were waited for."""
    total = 0
    for pid in tree(root):
        fields = stat(pid)
        if fields:
            total += sum(int(value) for value in fields[11:15])
    return total / TICKS


def private_memory(root):
    """Bytes of memory that belong to a process tree alone, and the number of its processes."""
    members = tree(root)
    return sum(private_bytes(pid) for pid in members), len(members)


def private_bytes(pid):
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        lines = [line.split() for line in file]
    return sum(int(line[1]) * 1024 for line in lines
               if line[0] in ("Private_Clean:", "Private_Dirty:"))


def wait_until(condition, seconds, what, pause=0.02):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what} did not happen within {seconds} s")
        time.sleep(pause)
