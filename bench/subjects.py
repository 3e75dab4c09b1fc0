"""Everything that is measured: Moonpool's variants, its peers, and the limits. This is the one place
to add a variant: its rows then stand beside the others in all tables."""
from dataclasses import dataclass, field

API = ("W1", "W2", "W3", "W5", "memory")  # what a program with the whole API takes part in


@dataclass(frozen=True)
class Subject:
    name: str
    kind: str  # "moonpool", "go", "node", "nginx", "limit" or "pgbench": see harness/servers.py
    about: str
    workloads: tuple
    options: dict = field(default_factory=dict)


def moonpool(name, about, scripts, sql, flags=(), workloads=API):
    """Folders are relative to the checkout; flags go to `moonpool serve`."""
    options = {"scripts": scripts, "sql": sql, "flags": list(flags)}
    return Subject(name, "moonpool", about, workloads, options)


SUBJECTS = [
    moonpool("moonpool", "the sample application", "scripts", "sql", workloads=API + ("W4",)),
    moonpool("moonpool-row", "a transaction per create, an update per row",
             "bench/variants/scripts", "bench/variants/row", workloads=("W1", "W5")),
    moonpool("moonpool-bulk", "the same with a :bulk update",
             "bench/variants/scripts", "bench/variants/bulk", workloads=("W1", "W5")),
    Subject("go", "go", "pgx v4 and Echo, an update per row", API + ("W4",), {"update": "row"}),
    Subject("go-unnest", "go", "the same with one update from unnest", ("W1", "W5"),
            {"update": "unnest"}),
    Subject("node", "node", "fastify and postgres.js, an update per row", API + ("W4",),
            {"read_pool": 4}),  # it pipelines, and is faster with few connections
    Subject("nginx", "nginx", "Lua in nginx, no database", ("W4", "memory")),
    Subject("c-row", "limit", "C on libpq pipelining, an update per row", ("W1",),
            {"update": "row"}),
    Subject("c-unnest", "limit", "the same with one update from unnest", ("W1",),
            {"update": "unnest"}),
    Subject("pgbench", "pgbench", "pgbench -S -M prepared", ("W2",)),
]

BASE = "moonpool"  # what the ratios are against
