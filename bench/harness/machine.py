"""What the figures were measured on."""
import os
import platform
import re
import shutil
import subprocess

from .cluster import BIN
from .servers import ROOT

VERSIONS = {
    "PostgreSQL": [f"{BIN}/postgres", "--version"],
    "go": ["go", "version"],
    "node": ["node", "--version"],
    "nginx": ["nginx", "-v"],
    "wrk": ["wrk", "-v"],
    "gcc": ["gcc", "--version"],
}
DEBIAN = ("golang-github-jackc-pgx-v4-dev", "golang-github-labstack-echo-dev",
          "libnginx-mod-http-lua", "libpq5", "libmicrohttpd12", "liblua5.4-0")


def first_line(argv, cwd=None):
    if not shutil.which(argv[0]):
        return None
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=30)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else None


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def processor():
    found = re.search(r"^model name\s*: (.+)$", read("/proc/cpuinfo"), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def memory_gb():
    return round(int(re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo")).group(1)) / 1e6, 1)


def system():
    found = re.search(r'^PRETTY_NAME="(.+)"$', read("/etc/os-release"), re.MULTILINE)
    return f"{found.group(1) if found else 'unknown'}, Linux {platform.release()}"


def versions(moonpool):
    found = {name: first_line(argv) for name, argv in VERSIONS.items()}
    found["moonpool"] = first_line([moonpool, "version"])
    found["commit"] = first_line(["git", "describe", "--always", "--dirty"], ROOT)
    for package in DEBIAN:
        found[package] = first_line(["dpkg-query", "-W", "-f", "${Version}", package])
    return {name: version for name, version in found.items() if version}


def describe(moonpool):
    return {"processor": processor(), "processors": os.cpu_count(), "memory_gb": memory_gb(),
            "system": system(), "load_before": os.getloadavg()[0], "versions": versions(moonpool)}
