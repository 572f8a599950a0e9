"""Metrics on the terminal: of a predictions file, of a run that has just ended, of an average."""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

from skinlesion.runs.directory import RunDirectory

log = logging.getLogger(__name__)


def show(path: Path, as_json: bool) -> None:
    """Print the metrics of a predictions file, or of a run's, part by part."""
    from skinlesion.evaluation.measured import Measured
    from skinlesion.evaluation.metrics import summary_table
    from skinlesion.evaluation.unknown import unknown_table
    from skinlesion.runs.predictions import read_predictions

    predictions = read_predictions(path)
    parts = [Measured(predictions.part(split)) for split in predictions.splits]
    written = path / "metrics.json"
    unknown = (
        RunDirectory(path).read_json(written.name).get("unknown") if written.exists() else None
    )
    if as_json:
        found = {part.name: part.metrics for part in parts}
        found |= {} if unknown is None else {"unknown": unknown}
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        texts = [f"{p.name}\n{summary_table(p.metrics)}\n{p.intervals()}" for p in parts]
        print("\n\n".join([*texts, *([] if unknown is None else [unknown_table(unknown)])]))


def summarise(directory: RunDirectory) -> None:
    """Log a finished run's metrics, a row per class, and where its files are."""
    from skinlesion.evaluation.metrics import summary_table
    from skinlesion.runs.predictions import SELECTED

    metrics = directory.read_json("metrics.json")
    for part, measured in metrics["parts"].items():
        role = SELECTED["test" if directory.values.get("head") else part]
        log.info("\n%s (split=%s: these images %s)", part, metrics["protocol"], role)
        log.info(summary_table(measured))
        if copies := metrics["leak"].get(part, {}).get("near_copies"):
            log.info("%s of these images are a training image of another lesion", copies)
    if unknown := metrics.get("unknown"):
        from skinlesion.evaluation.unknown import unknown_table

        log.info("\n%s", unknown_table(unknown))
    written = [directory.path / name for name in ("predictions.csv", "metrics.json")]
    written += sorted(directory.figures.glob("*.png"))
    log.info("\n%s", "\n".join(map(str, written)))


def average_command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Write the average, and print its metrics."""
    parser.epilog = (
        "example: skinlesion average runs/resnet50/1f3a5b7c9d/seed* --out runs/average/a/seed0"
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a finished run")
    parser.add_argument("--out", type=Path, required=True, help="a new directory, like a run's")
    about = "the runs are the folds of one split: put their reported parts together instead"
    parser.add_argument("--out-of-fold", action="store_true", help=about)
    return _average


def _average(options: argparse.Namespace) -> None:
    from skinlesion.evaluation.average import average
    from skinlesion.evaluation.metrics import summary_table

    out = average(options.runs, options.out, options.out_of_fold)
    for part, measured in out.read_json("metrics.json")["parts"].items():
        print(f"{part}\n{summary_table(measured)}\n")
    print(out.predictions)
