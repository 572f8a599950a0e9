"""Every figure of a run, into its directory."""

import logging
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_temperature
from skinlesion.runs.history import read_history
from skinlesion.runs.predictions import Predictions, read_predictions
from skinlesion.reporting.figures.confusion import confusion_matrix
from skinlesion.reporting.figures.curves import precision_recall, roc
from skinlesion.reporting.figures.f1 import per_class_f1, published_row, row_name
from skinlesion.reporting.figures.learning import learning_curves
from skinlesion.reporting.figures.mistakes import mistakes
from skinlesion.reporting.figures.page import Page
from skinlesion.reporting.figures.part import Part
from skinlesion.reporting.figures.reliability import reliability
from skinlesion.reporting.figures.source import Source, open_source
from skinlesion.runs.directory import RunDirectory

if TYPE_CHECKING:
    from skinlesion.serving.model import LesionModel

FITTED_ON = "val"
LAST = "learning_curves"  # to be drawn: where it is, the others are

log = logging.getLogger(__name__)

Drawing = tuple[str, Callable[[], Page | None]]


def draw_run_figures(run: RunDirectory, data_root: Path | None = None) -> list[Path]:
    """Draw every figure of a run into its folder `figures`, each as PNG and PDF.

    `learning_curves`, and for each part of the predictions `confusion_matrix_`, `roc_`,
    `precision_recall_`, `reliability_`, `per_class_f1_` and, where the images are, `mistakes_` and
    (with a checkpoint) `attention_` with the part's name. Where they are not, one line of log says
    so.

    Args:
        run: its directory; config, history, predictions and the checkpoint are read.
        data_root: the folder of its images; None: the one that it was trained on.

    Returns:
        The paths of the PNGs.

    Raises:
        SkinlesionError: if the predictions or the history are missing or wrong.
    """
    predictions = read_predictions(run.predictions)
    drawings = list(_drawings(run, predictions, data_root))
    paths = []
    for name, draw in (bar := tqdm(drawings, "figures", unit="figure", leave=False, disable=None)):
        bar.set_postfix_str(name)
        if (page := draw()) is not None:
            paths.append(page.save(run.figures / f"{name}.png"))
    return paths


def outdated(run: RunDirectory) -> bool:
    """Return whether a finished run has no figures, not all, or older ones than its predictions."""
    last = run.figures / f"{LAST}.png"
    return not last.exists() or last.stat().st_mtime < run.predictions.stat().st_mtime


def _drawings(
    run: RunDirectory, predictions: Predictions, data_root: Path | None
) -> Iterator[Drawing]:
    """Yield each figure's name and how it is drawn."""
    config, words = run.config, describe(run.config)
    history = read_history(run.history)
    temperature, images = None, ""
    if FITTED_ON in predictions.splits:
        held_out = predictions.part(FITTED_ON)
        temperature = fit_temperature(held_out.y, held_out.probabilities)
        images = f"the {len(held_out.y):,} images of the validation part"
    source = open_source(config, data_root)
    published = published_row(config, predictions.classes)
    load = cache(partial(_load, run))  # once, whatever the number of parts
    for name in predictions.splits:
        part = Part(name, words, predictions.part(name))
        fitted_on = f"{images}, these very images" if name == FITTED_ON else images
        yield f"confusion_matrix_{name}", partial(confusion_matrix, part)
        yield f"roc_{name}", partial(roc, part)
        yield f"precision_recall_{name}", partial(precision_recall, part)
        yield f"reliability_{name}", partial(reliability, part, temperature, fitted_on)
        yield f"per_class_f1_{name}", partial(per_class_f1, part, published, row_name(config))
        if source is not None:
            yield f"mistakes_{name}", partial(mistakes, part, source)
            if run.best.exists():
                yield f"attention_{name}", partial(_attention, load, part, source)
    yield LAST, partial(learning_curves, history, config, words)


def _load(run: RunDirectory) -> "LesionModel":
    from skinlesion.serving.model import load_run  # torch, for this figure alone

    return load_run(run.path)


def _attention(load: Callable[[], "LesionModel"], part: Part, source: Source) -> Page | None:
    """Draw where the network looks."""
    from skinlesion.reporting.figures.attention import class_panel
    from skinlesion.serving.attention import explain

    try:
        model = load()
        return class_panel(part, lambda i: explain(model, source.read(i), source.metadata(i)))
    except SkinlesionError as error:
        log.warning("attention of %s is not drawn: %s", part.name, error)
        return None


def describe(config: DictConfig) -> str:
    """Say which run it is: `mobilenet_v2, seed 0, split by lesion`."""
    backbone = OmegaConf.select(config, "backbone.name")
    by = OmegaConf.select(config, "split.by")
    return f"{backbone}, seed {config.seed}, split by {by}"
