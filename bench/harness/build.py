"""Builds what the benchmark needs, outside the sources. What cannot be built is reported, with the
reason, and its rows are missing."""
import os
import shutil
import subprocess

from .servers import ROOT

C_FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror"]


class Missing(Exception):
    pass


def run(argv, env=None, cwd=None):
    done = subprocess.run(argv, capture_output=True, text=True, cwd=cwd, timeout=600,
                          env={**os.environ, **(env or {})})
    if done.returncode != 0:
        raise Missing(f"{argv[0]} failed: {' '.join((done.stderr or done.stdout).split())[-300:]}")
    return done.stdout


def need(program):
    if not shutil.which(program):
        raise Missing(f"{program} is not installed")


def build_load(folder):
    bench = os.path.join(ROOT, "bench")
    run(["gcc", *C_FLAGS, f"{bench}/load/create.c", f"{bench}/load/rounds.c", "-o",
         f"{folder}/create", "-lpthread"])


def build_limit(folder):
    bench = os.path.join(ROOT, "bench")
    include = run(["pkg-config", "--cflags", "libpq"]).split()
    run(["gcc", *C_FLAGS, *include, f"{bench}/limits/create_user.c", f"{bench}/load/rounds.c", "-o",
         f"{folder}/create_user", "-lpq", "-lpthread"])


def build_go(folder):
    need("go")
    env = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "CGO_ENABLED": "0",
           "GOCACHE": f"{folder}/go-cache"}
    run(["go", "build", "-o", f"{folder}/go-server", "."], env, os.path.join(ROOT, "bench/peers/go"))


def build_node(folder):
    """Installs what package-lock.json pins, once."""
    need("node")
    need("npm")
    place = os.path.join(folder, "node")
    os.makedirs(place, exist_ok=True)
    lock = os.path.join(ROOT, "bench/peers/node/package-lock.json")
    installed = os.path.join(place, "installed-lock.json")
    for name in ("package.json", "package-lock.json", "server.js"):
        shutil.copy(os.path.join(ROOT, "bench/peers/node", name), place)
    if not os.path.exists(installed) or open(installed, "rb").read() != open(lock, "rb").read():
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=place)
        shutil.copy(lock, installed)


def build_nginx(folder):
    need("nginx")
    if not os.path.exists("/usr/lib/nginx/modules/ngx_http_lua_module.so"):
        raise Missing("libnginx-mod-http-lua is not installed")


def build_nothing(folder):
    pass


BUILDERS = {"moonpool": build_nothing, "go": build_go, "node": build_node, "nginx": build_nginx,
            "limit": build_limit, "pgbench": build_nothing}


def build_all(folder, kinds):
    """Gives the kinds of subjects that cannot run: kind -> reason."""
    os.makedirs(folder, exist_ok=True)
    build_load(folder)
    missing = {}
    for kind in kinds:
        try:
            BUILDERS[kind](folder)
        except (Missing, OSError, subprocess.TimeoutExpired) as reason:
            missing[kind] = str(reason)
    return missing
