"""``python -m skinlesion.bench``: how fast it is on this machine, as ratios inside one run."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skinlesion.cli import report_errors, without_plus
from skinlesion.errors import SkinlesionError
from skinlesion.sweeps.jobs import CONF

if TYPE_CHECKING:
    from skinlesion.bench.setting import Setting

MEASUREMENTS = {
    "pipeline": "training ÷ its step alone: the share of the limit",
    "ordinary": "ours ÷ the ordinary way (PIL, torchvision, float32), training and loader",
    "epochs": "seconds an epoch, beside the paper's",
    "switches": "each switch of conf/compute, and that it changes no result",
    "attention": "the step with soft attention and without",
    "growth": "1, 10 and 100 times the images",
    "latency": "inference: one image, and batches of 64",
    "limits": "arithmetic, memory traffic and launches of a step: what limits it",
    "fixed": "what a run takes besides training",
}
LISTED = "\n".join(f"  {name:<11}{what}" for name, what in MEASUREMENTS.items())
EPILOG = f"""\
measurements:
{LISTED}

examples:
  python -m skinlesion.bench pipeline ordinary --backbones mobilenet_v3_small
  python -m skinlesion.bench --minutes 10 data.root=archive backbone.input_size=96

Each result is a JSON file of OUT/<device>/, written as soon as it is there; bench.md shows them
all. The same command goes on where it was stopped: what was measured at the same commit, with the
same settings and batch, is not measured again. Unless told otherwise weights=none and
preprocess=paper, on which speed does not depend."""

Pair = tuple[str, str]  # measurement, backbone


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and not there yet, and print the page of all results."""
    options = _parser().parse_intermixed_args(arguments)
    names = [word for word in options.words if "=" not in word] or [*MEASUREMENTS]
    overrides = without_plus([word for word in options.words if "=" in word], CONF)
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise SkinlesionError(
            f"there is no measurement {', '.join(unknown)}; there are {', '.join(MEASUREMENTS)}."
        )
    for name, value in (("--batch", options.batch), ("--minutes", options.minutes)):
        if value is not None and value <= 0:
            raise SkinlesionError(f"{name} {value:g}: expected a number above 0")
    known = backbones()
    wanted = [name for name in (options.backbones or "").split(",") if name]
    if unknown := [name for name in wanted if name not in known]:
        raise SkinlesionError(
            f"there is no backbone {', '.join(unknown)}; there are {', '.join(known)}."
        )
    from skinlesion.bench.report import write_page
    from skinlesion.bench.results import folder

    setting = _setting(tuple(overrides), options.batch)
    where = folder(Path(options.out), setting)
    try:
        _measure(_plan(names, wanted, setting), setting, where, options.minutes, options.again)
    finally:
        if where.is_dir():
            print(f"\n{write_page(where, [*MEASUREMENTS])}\n{where}")


def backbones() -> list[str]:
    """Return the backbones of the config, without those of other works."""
    return sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))


def _setting(overrides: tuple[str, ...], batch: int | None) -> "Setting":
    from skinlesion.bench.setting import Setting

    return Setting(overrides, batch)


def _plan(names: Sequence[str], wanted: Sequence[str], setting: "Setting") -> list[Pair]:
    """Return what to measure of which backbone."""
    from skinlesion.bench.results import load

    own = setting.config.backbone.name
    named = any(word.startswith("backbone=") for word in setting.overrides)
    each = wanted or ([own] if named else backbones())
    return [
        (name, backbone)
        for name in dict.fromkeys(names)
        for backbone in (each if load(name).each else [own])
    ]


def _measure(
    plan: Sequence[Pair], setting: "Setting", where: Path, minutes: float | None, again: bool
) -> None:
    """Measure one after the other, until the time is over."""
    from skinlesion.bench.results import load, measure, path_of, write

    began = time.monotonic()
    for i, (name, backbone) in enumerate(plan, 1):
        line = f"{i}/{len(plan)} {name} {backbone}"
        path = path_of(where, name, backbone)
        if not again and _is_there(path, setting, backbone):
            print(f"{line}: is there", flush=True)
            continue
        if minutes is not None and time.monotonic() - began > 60 * minutes:
            left = len(plan) - i + 1
            print(f"{minutes:g} minutes are over, {left} left: the same command goes on")
            return
        print(f"{line} …", flush=True)
        result = measure(load(name), setting, backbone)
        write(result, path)
        print(f"{line}: {result.seconds:.0f} s", flush=True)


def _is_there(path: Path, setting: "Setting", backbone: str) -> bool:
    """Return whether the result is there, of the same commit, settings and batch."""
    from skinlesion.bench.results import read, state_of

    return path.exists() and read(path).state == state_of(setting, backbone)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.bench",
        description="Measure how fast it is on this machine, as ratios inside one run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="MEASUREMENT|key=value",
        help="what to measure (default: all), and overrides of the config as for train.py",
    )
    parser.add_argument("--backbones", metavar="A,B,…", help="which (default: all)")
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images a step (default: 128 on a GPU, 32 on a CPU)"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="begin nothing more after so many"
    )
    parser.add_argument("--out", default="bench", help="folder of the results (default: bench)")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    return parser


if __name__ == "__main__":
    with report_errors(config_dir=str(CONF), resumes=True):
        main()
