"""The metrics of a predictions file, or of a run that has just ended, on the terminal."""

import json
import logging
from pathlib import Path

from skinlesion.runs.directory import RunDirectory

log = logging.getLogger(__name__)


def show(path: Path, as_json: bool) -> None:
    """Print the metrics of a predictions file, or of a run's, part by part."""
    from skinlesion.evaluation.measured import Measured
    from skinlesion.evaluation.metrics import summary_table
    from skinlesion.runs.predictions import read_predictions

    predictions = read_predictions(path)
    parts = [Measured(predictions.part(split)) for split in predictions.splits]
    if as_json:
        print(json.dumps({part.name: part.metrics for part in parts}, indent=2, allow_nan=False))
    else:
        texts = [f"{p.name}\n{summary_table(p.metrics)}\n{p.intervals()}" for p in parts]
        print("\n\n".join(texts))


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
