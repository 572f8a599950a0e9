"""The JSON file of a result, and the page of all results of a device."""

import json
import re
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.setting import Setting
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.runs.provenance import provenance
from skinlesion.templates import environment

HERE, PAGE = Path(__file__).parent, "bench.md"

Result = dict[str, Any]  # measurement, backbone, rows, `asked`, seconds it took, provenance


def asked(setting: Setting, backbone: str) -> Result:
    """Return the commit and settings of which a result must be to stand for a measurement now."""
    size, made = setting.job(backbone).batch_size, provenance()
    wanted = {"overrides": [*setting.overrides], "batch_size": size, "timed_for": setting.seconds}
    return wanted | {"commit": made["commit"], "dirty": made["dirty"]}


def is_there(path: Path, setting: Setting, backbone: str) -> bool:
    """Return whether such a result is there."""
    return path.exists() and asked(setting, backbone).items() <= read(path).items()


def measure(name: str, setting: Setting, backbone: str, path: Path) -> None:
    """Measure and write the result; running out of memory is one too."""
    started, settings = time.perf_counter(), asked(setting, backbone)
    try:
        rows = import_module(f"benchmarks.{name}").run(setting, backbone)
    except (MemoryError, RuntimeError) as error:
        rows = [{"problem": problem(error)}]
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    result = {"measurement": name, "backbone": backbone, "rows": rows, **settings}
    result |= {"seconds": time.perf_counter() - started, "provenance": provenance()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1), encoding="utf-8")


def problem(error: Exception) -> str:
    """Return that memory ran out in a few words, or raise the error if it says something else."""
    if isinstance(error, MemoryError) or re.search("(?i)out of memory|t allocate mem", str(error)):
        return "out of memory"
    raise error


def folder(out: Path, setting: Setting) -> Path:
    """Return the device's folder of results."""
    name = f"{setting.device.type} {provenance()['cores']} cores"
    if setting.device.type == "cuda":
        name = torch.cuda.get_device_name(setting.device)
    return out / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def read(path: Path) -> Result:
    """Read the file of a result."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise SkinlesionError(f"{path} is damaged: remove it, and measure again.") from None


def write_page(where: Path) -> str:
    """Write the page of a device's folder, which shows all of its results, and return it."""
    results = [read(path) for path in sorted(where.glob("*.json"))]
    templates = environment(HERE, "txt")
    templates.filters |= {"columns": columns, "cell": cell}
    text = templates.get_template(f"{PAGE}.jinja").render(results=results)
    with replacing(where / PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return text


def columns(results: list[Result]) -> list[str]:
    """Return the headings of the rows of results, each once."""
    return list(dict.fromkeys(name for result in results for row in result["rows"] for name in row))


def cell(value: Any) -> str:
    """Return a value as a cell: three digits that count, a range, or text."""
    if value is None or isinstance(value, str | bool):
        return "-" if value is None else str(value).replace("|", "\\|")
    if isinstance(value, list):
        return " to ".join(map(cell, value))
    return f"{value:,.0f}" if 100 <= abs(value) < 1e7 else f"{value:.3g}"
