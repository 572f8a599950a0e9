"""`skinlesion evaluate`: the metrics of a predictions file, or of a run that has just ended."""

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path

from skinlesion.runs.directory import RunDirectory

log = logging.getLogger(__name__)


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Print the metrics of a run from its predictions, split by split."""
    parser.epilog = "example: skinlesion evaluate runs/resnet50/1f3a5b7c9d/seed0"
    what = "image_id, lesion_id, split, label, a probability column per class; or a run's directory"
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS.csv", help=what)
    about = "print one JSON object, split to metrics, in full precision"
    parser.add_argument("--json", action="store_true", help=about)
    return run


def run(options: argparse.Namespace) -> None:
    """Evaluate and print."""
    from skinlesion.evaluation.metrics import evaluate_file, summary_table

    path = options.predictions
    metrics = evaluate_file(path / "predictions.csv" if path.is_dir() else path)
    if options.json:
        print(json.dumps(metrics, indent=2, allow_nan=False))
    else:
        print("\n\n".join(f"{split}\n{summary_table(part)}" for split, part in metrics.items()))


def summarise(directory: RunDirectory) -> None:
    """Log a finished run's metrics, a row per class, and where its files are."""
    from skinlesion.evaluation.metrics import summary_table
    from skinlesion.runs.predictions import SELECTED

    metrics = directory.read_json("metrics.json")
    for part, measured in metrics["parts"].items():
        log.info("\n%s (split=%s: these images %s)", part, metrics["protocol"], SELECTED[part])
        log.info(summary_table(measured))
    written = [directory.path / name for name in ("predictions.csv", "metrics.json")]
    written += sorted(directory.figures.glob("*.png"))
    log.info("\n%s", "\n".join(map(str, written)))
