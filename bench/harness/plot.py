"""The plot: a panel of bars for each case, as SVG written by hand. It has a background of its own, so
that it reads on light and dark pages."""
from html import escape

from .report import times

COLORS = {"moonpool": "#5b4bdb", "go": "#00a3c4", "node": "#4f9d45", "nginx": "#9aa0a6",
          "limit": "#d98c00", "pgbench": "#b3693c"}
COLUMNS, PANEL_WIDTH, GAP, MARGIN = 2, 500, 28, 28
BAR, BAR_STEP, HEAD, LABEL, VALUE = 15, 22, 30, 84, 118
TITLE_HEIGHT, FOOT_HEIGHT = 64, 40


def text(x, y, content, size=12, anchor="start", weight="normal", color="#1f2430"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'font-weight="{weight}" fill="{color}">{escape(content)}</text>')


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(x, y, low, high, scale):
    """A line from the lowest to the highest repetition."""
    middle = y + BAR / 2
    return (f'<path d="M{x + low * scale:.1f} {middle:.1f}H{x + high * scale:.1f}" '
            f'stroke="#1f2430" stroke-width="1.5" stroke-opacity="0.55"/>')


def bar(x, y, row, scale):
    width = max(1.0, row["value"] * scale)
    end = x + max(width, row["high"] * scale) + 6
    return [text(x - 8, y + 12, row["name"], anchor="end"),
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" rx="2" '
            f'fill="{COLORS[row["kind"]]}"/>',
            spread(x, y, row["low"], row["high"], scale),
            text(end, y + 12, f'{number(row["value"])}{row["suffix"]}', color="#4a5160")]


def panel(x, y, title, rows):
    parts = [text(x, y + 14, title, size=13, weight="bold")]
    longest = max(row["high"] for row in rows) or 1
    scale = (PANEL_WIDTH - LABEL - VALUE) / longest
    for i, row in enumerate(rows):
        parts += bar(x + LABEL, y + HEAD + i * BAR_STEP, row, scale)
    return parts


def panel_height(rows):
    return HEAD + len(rows) * BAR_STEP + GAP


def speed_rows(case, base_name):
    base = case["subjects"].get(base_name, {}).get("summary", {}).get("rate")
    rows = []
    for name, entry in case["subjects"].items():
        if "summary" in entry:
            summary = entry["summary"]
            ratio = f" ({times(summary['rate'] / base)}×)" if base and name != base_name else ""
            rows.append({"name": name, "kind": entry["kind"], "value": summary["rate"],
                         "low": summary["rate_low"], "high": summary["rate_high"],
                         "suffix": f"/s{ratio}"})
    return rows


def memory_rows(case):
    return [{"name": name, "kind": entry["kind"], "value": entry["summary"]["idle_mb"],
             "low": entry["summary"]["idle_mb"], "high": entry["summary"]["idle_mb"],
             "suffix": " MB"}
            for name, entry in case["subjects"].items() if "summary" in entry]


def panels(results, base_name):
    found = []
    for case in results["cases"]:
        if case["workload"] == "memory":
            found.append(("Private memory when idle (less is better)", memory_rows(case)))
        else:
            found.append((case["title"], speed_rows(case, base_name)))
    return [(title, rows) for title, rows in found if rows]


def place(found):
    """Panels in columns, row by row, each row as high as its highest panel."""
    parts, y = [], TITLE_HEIGHT
    for i in range(0, len(found), COLUMNS):
        row = found[i:i + COLUMNS]
        for j, (title, rows) in enumerate(row):
            parts += panel(MARGIN + j * (PANEL_WIDTH + GAP), y, title, rows)
        y += max(panel_height(rows) for _, rows in row)
    return parts, y


def svg(results, base_name):
    parts, y = place(panels(results, base_name))
    width = 2 * MARGIN + COLUMNS * PANEL_WIDTH + (COLUMNS - 1) * GAP
    height = y + FOOT_HEIGHT
    machine, settings = results["machine"], results["settings"]
    head = (f"{results['date']}, {machine['processor']}, {machine['processors']} processors; "
            f"{settings['workers']} workers each; medians of {settings['repetitions']}")
    foot = (f"Successful requests per second, more is better; the line spans the repetitions; "
            f"(×) is against {base_name}. Same machine, same PostgreSQL, same run.")
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        text(MARGIN, 32, "Moonpool, its peers, and the limits", size=19, weight="bold"),
        text(MARGIN, 51, head, color="#4a5160"), *parts,
        text(MARGIN, height - 18, foot, color="#4a5160"), "</svg>", ""])
