"""``python -m benchmarks``: measure how fast it is on this machine, as ratios within one run."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from skinlesion.cli import CONF, as_hydra_reads, report_errors
from skinlesion.errors import SkinlesionError

MEASUREMENTS = {
    "pipeline": "training ÷ its step alone: the share of the limit",
    "baseline": "ours ÷ the usual way (PIL, torchvision, float32), training and loader",
    "epochs": "seconds an epoch, beside the paper's",
    "switches": "each switch of conf/machine, and that it changes no result",
    "attention": "the step with soft attention and without",
    "latency": "inference: one image, and batches of 64",
    "limits": "arithmetic, memory traffic and launches of a step: what limits it",
    "startup": "what a run takes besides training",
}
LISTED = "\n".join(f"  {name:<11}{what}" for name, what in MEASUREMENTS.items())
EPILOG = f"""\
measurements:
{LISTED}

Each result is a JSON file of OUT/<device>/; bench.md shows them all. The same command goes on where
it was stopped: what was measured at the same commit with the same settings is not measured again.
Unless told otherwise weights=none and preprocess=paper, on which speed does not depend."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and not there yet, and print the page of all results."""
    options = _parser().parse_intermixed_args(arguments)
    names = [word for word in options.words if "=" not in word] or [*MEASUREMENTS]
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        there = ", ".join(MEASUREMENTS)
        raise SkinlesionError(f"there is no measurement {', '.join(unknown)}; there are {there}.")
    from benchmarks.results import folder, is_there, measure, write_page
    from benchmarks.setting import Setting

    overrides = as_hydra_reads([word for word in options.words if "=" in word], CONF)
    typed = [word.partition("=")[2] for word in overrides if word.startswith("backbone=")]
    known = sorted(path.stem for path in (CONF / "backbone").glob("*.yaml"))
    backbones = options.backbones.split(",") if options.backbones else typed or known
    setting = Setting(tuple(overrides), options.batch, options.seconds)
    where, began = folder(Path(options.out), setting), time.monotonic()
    plan = [(name, backbone) for name in dict.fromkeys(names) for backbone in backbones]
    try:
        for i, (name, backbone) in enumerate(plan):
            line, path = f"{i + 1}/{len(plan)} {name} {backbone}", where / f"{name}-{backbone}.json"
            if is_there(path, setting, backbone):
                print(f"{line}: is there", flush=True)
                continue
            if time.monotonic() - began > 60 * options.minutes:
                print(f"the time is over, {len(plan) - i} left: the same command goes on")
                break
            print(f"{line} …", flush=True)
            measure(name, setting, backbone, path)
    finally:
        if where.is_dir():
            print(f"\n{write_page(where)}\n{where}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__.partition(": ")[2],
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="NAME|key=value", help="what (default: all), and overrides")
    add("--backbones", metavar="A,B,…", help="which (default: all)")
    add("--batch", type=int, help="images a step (default: 128 on a GPU, 32 on a CPU)")
    add("--seconds", type=float, default=3, help="of timing a figure in each round (default: 3)")
    add("--minutes", type=float, default=float("inf"), help="begin nothing more after so many")
    add("--out", default="bench", help="folder of the results (default: bench)")
    return parser


if __name__ == "__main__":
    with report_errors(config_dir=str(CONF), resumes=True):
        main()
