"""All results of a device as one page of Markdown."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from skinlesion.bench.results import Measurement, Result, load, read
from skinlesion.files import replacing

PAGE = "bench.md"
ABOUT = ("gpu", "cuda", "cpu", "cores", "threads", "platform", "python")


def write_page(where: Path, names: Sequence[str]) -> str:
    """Write the page of a device's folder, and return it.

    Args:
        where: the folder.
        names: of the measurements, in their order.

    Raises:
        SkinlesionError: if a file is no result.
    """
    results = [read(path) for path in sorted(where.glob("*.json"))]
    text = page([load(name) for name in names if _of(results, name)], results)
    with replacing(where / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def page(measurements: Iterable[Measurement], results: Sequence[Result]) -> str:
    """Return the page: what was measured on, then a table a measurement."""
    parts = [_head(results)]
    for measurement in measurements:
        found = _of(results, measurement.name)
        parts.append(f"## {measurement.title}\n\n{measurement.how}\n\n{_table(measurement, found)}")
    return "\n\n".join(parts) + "\n"


def number(value: Any) -> str:
    """Return a value as a cell: three digits that count, a range, or text."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return " to ".join(map(number, value))
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        if value == 0 or not math.isfinite(value):
            return f"{value:g}"
        if abs(value) < 1e-3:
            return f"{value:.1e}"
        rounded = float(f"{value:.2e}")
        decimals = 2 - math.floor(math.log10(abs(rounded)))
        return f"{rounded:,.{max(decimals, 0)}f}"
    return str(value).replace("|", "\\|")


def _of(results: Sequence[Result], name: str) -> list[Result]:
    return [result for result in results if result.measurement == name]


def _head(results: Sequence[Result]) -> str:
    made = [result.provenance for result in results]
    hardware = next((p["gpu"] or p["cpu"] for p in made), "nothing measured")
    commits = [f"{p['commit'] or 'unknown'}{' and changes' if p['dirty'] else ''}" for p in made]
    lines = [("commit", commits)]
    lines += [(name, [str(p[name]) for p in made if p[name] is not None]) for name in ABOUT]
    lines += [
        (name, [p["packages"][name] for p in made if p["packages"].get(name)])
        for name in dict.fromkeys(name for p in made for name in p["packages"])
        if name != "skinlesion"
    ]
    lines += [("settings", [" ".join(result.overrides) or "defaults" for result in results])]
    listed = "\n".join(f"- {name}: {_seen(values)}" for name, values in lines if values)
    return f"# Benchmark: {hardware}\n\n{listed}"


def _seen(values: Sequence[str]) -> str:
    """Return the value of all results, or each with how many have it."""
    counted = Counter(values)
    if len(counted) == 1:
        return values[0]
    return "**differs**: " + "; ".join(f"{value} ({n} results)" for value, n in counted.items())


def _table(measurement: Measurement, results: Sequence[Result]) -> str:
    columns = dict(measurement.columns)
    if measurement.each:
        columns = {"backbone": "backbone"} | columns
    rows = [{"backbone": result.backbone} | row for result in results for row in result.rows]
    if any("problem" in row for row in rows):
        columns["problem"] = "problem"
    lines = [[*columns.values()], ["---"] * len(columns)]
    lines += [[number(row.get(key)) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
