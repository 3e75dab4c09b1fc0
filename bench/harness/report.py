"""Medians over the repetitions, and the tables on standard output."""
import statistics

COLUMNS = [  # heading, width
    ("", 12), ("req/s", 10), ("lowest-highest", 17), ("ratio", 7), ("p50 ms", 9), ("p99 ms", 9),
    ("max ms", 9), ("app µs/req", 11), ("PG µs/req", 10), ("failed", 7),
]
MEMORY_COLUMNS = [("", 12), ("processes", 10), ("idle MB", 9), ("1,000 conns", 12),
                  ("10,000 conns", 13), ("kB/conn", 8), ("after load", 11), ("start ms", 9)]


def median(values):
    """Of those that are there; a figure that no repetition has stays away."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def summarise(repetitions):
    """Medians of all numbers, and the spread of the rate."""
    names = {name for one in repetitions for name, value in one.items()
             if isinstance(value, (int, float))}
    summary = {name: median([one.get(name) for one in repetitions]) for name in sorted(names)}
    rates = [one["rate"] for one in repetitions if "rate" in one]
    if rates:
        summary["rate_low"], summary["rate_high"] = min(rates), max(rates)
    return summary


def number(value):
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def times(ratio):
    """A ratio: two digits behind the point, or more where that would say little."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def line(columns, cells):
    (_, first), *others = columns
    text = cells[0].ljust(first)
    return text + "".join(cell.rjust(width) for cell, (_, width) in zip(cells[1:], others))


def speed_cells(name, summary, base):
    rate = summary["rate"]
    ratio = times(rate / base) if base else "-"
    spread = f"{number(summary['rate_low'])}-{number(summary['rate_high'])}"
    shown = [summary.get(key) for key in ("p50_ms", "p99_ms", "max_ms", "app_cpu_us", "pg_cpu_us")]
    return [name, number(rate), spread, ratio, *map(number, shown), number(summary["failures"])]


def memory_cells(name, summary):
    keys = ("processes", "idle_mb", "connections_1000_mb", "connections_10000_mb", "connection_kb",
            "after_load_mb", "start_ms")
    return [name, *(number(summary.get(key)) for key in keys)]


def print_case(case, base_name):
    """`case` is an entry of the results."""
    memory = case["workload"] == "memory"
    columns = MEMORY_COLUMNS if memory else COLUMNS
    print(f"\n{case['title']}")
    print(line(columns, [heading for heading, _ in columns]))
    base = case["subjects"].get(base_name, {}).get("summary", {}).get("rate")
    for name, entry in case["subjects"].items():
        if "summary" in entry:
            summary = entry["summary"]
            print(line(columns, memory_cells(name, summary) if memory else
                       speed_cells(name, summary, base)))
        print_remarks(name, entry)


def print_remarks(name, entry):
    """What a number cannot say; the same remark of several repetitions stands once."""
    remarks = [entry["not_run"]] if "not_run" in entry else []
    for one in entry.get("repetitions", []):
        remarks += [f"BOOKS: {fault}" for fault in one.get("faults", [])]
        remarks += [one["connections_failed"]] if "connections_failed" in one else []
        if "statuses" in one:
            counts = [f"{count} of {status}" for status, count in one["statuses"].items()]
            remarks.append(f"answers by status: {', '.join(counts)}")
    label = "not run: " if "not_run" in entry else ""
    for remark in dict.fromkeys(remarks):
        print(f"  {name}: {label}{remark}")


def print_head(machine, settings, missing):
    print(f"{machine['processor']}, {machine['processors']} processors, {machine['memory_gb']} GB, "
          f"{machine['system']}; load before: {machine['load_before']:.2f}")
    for name, version in machine["versions"].items():
        print(f"  {name}: {version}")
    print(", ".join(f"{name}: {value}" for name, value in settings.items()))
    for kind, reason in missing.items():
        print(f"NOT RUN: {kind}: {reason}")


def print_tail(commands, base_name):
    print(f"\nratio: requests/s against those of {base_name} in the same case; medians throughout")
    print("\nCommands (ports differ each time):")
    for text in commands:
        print(f"  {text}")
