"""What a measurement is, and the file of its result."""

import importlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from skinlesion.bench.setting import Setting
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.runs.provenance import provenance

Rows = list[dict[str, Any]]

EXHAUSTED = re.compile("out of memory|can't allocate memory", re.IGNORECASE)


@dataclass(frozen=True)
class Measurement:
    """Something that can be measured.

    Attributes:
        name: of its module and its files.
        title: its heading.
        how: a sentence or two: what is divided by what.
        columns: key of a row → heading, with the unit.
        each: whether once for each backbone, or once.
        run: setting, backbone → rows.
    """

    name: str
    title: str
    how: str
    columns: Mapping[str, str]
    each: bool
    run: Callable[[Setting, str], Rows]


@dataclass(frozen=True)
class Result:
    """What a measurement gave; the fields are those of its file.

    Attributes:
        measurement: its name.
        backbone: the backbone's.
        rows: the table.
        overrides: of the config, as typed.
        batch_size: images a step.
        seconds: how long it took.
        provenance: see `skinlesion.runs.provenance.provenance`.
    """

    measurement: str
    backbone: str
    rows: Rows
    overrides: list[str]
    batch_size: int
    seconds: float
    provenance: dict[str, Any]

    @property
    def state(self) -> tuple[Any, ...]:
        """See `state_of`."""
        return _state(self.provenance, self.overrides, self.batch_size)


def state_of(setting: Setting, backbone: str) -> tuple[Any, ...]:
    """Return what a result must be of, to stand for a measurement now: commit, settings, batch."""
    return _state(provenance(), setting.overrides, setting.job(backbone).batch_size)


def _state(
    made_with: Mapping[str, Any], overrides: Sequence[str], batch_size: int
) -> tuple[Any, ...]:
    return made_with["commit"], made_with["dirty"], sorted(overrides), batch_size


def load(name: str) -> Measurement:
    """Return the measurement of this name."""
    found: Measurement = importlib.import_module(f"skinlesion.bench.{name}").MEASUREMENT
    return found


def folder(out: Path, setting: Setting) -> Path:
    """Return the device's folder of results."""
    if setting.device.type == "cuda":
        name = torch.cuda.get_device_name(setting.device)
    else:
        name = f"{setting.device.type} {provenance()['cores']} cores"
    return out / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def path_of(where: Path, measurement: str, backbone: str) -> Path:
    """Return the file of a result in the device's folder."""
    return where / f"{measurement}-{backbone.replace('/', '-')}.json"


def measure(measurement: Measurement, setting: Setting, backbone: str) -> Result:
    """Measure; running out of memory is a result too.

    Raises:
        SkinlesionError: if the config or the data is wrong.
    """
    started = time.perf_counter()
    config = setting.job(backbone)
    try:
        rows = measurement.run(setting, backbone)
    except (MemoryError, RuntimeError) as error:
        rows = [{"problem": problem(error)}]
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    return Result(
        measurement=measurement.name,
        backbone=backbone,
        rows=rows,
        overrides=list(setting.overrides),
        batch_size=config.batch_size,
        seconds=round(time.perf_counter() - started, 1),
        provenance=provenance(),
    )


def problem(error: Exception) -> str:
    """Return that memory ran out in a few words, or raise the error if it says something else."""
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if exhausted or EXHAUSTED.search(str(error)):
        return "out of memory"
    raise error


def write(result: Result, path: Path) -> None:
    """Write the file of a result."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")


def read(path: Path) -> Result:
    """Read the file of a result.

    Raises:
        SkinlesionError: if it is none.
    """
    try:
        return Result(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise SkinlesionError(
            f"{path} is no result of a measurement ({error}): remove it, and measure again."
        ) from None
