"""Every figure of a run, into its directory."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from skinlesion.data.run_images import RunImages, open_run_images
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.calibration import fit_temperature
from skinlesion.evaluation.measured import Measured
from skinlesion.reporting.figures import gallery, quality
from skinlesion.reporting.figures.learning import learning_curves
from skinlesion.reporting.figures.style import save
from skinlesion.runs.directory import RunDirectory, read_history
from skinlesion.runs.predictions import SELECTED, read_predictions
from skinlesion.text import counted

LAST = "learning_curves"  # to be drawn: where it is, the others are

log = logging.getLogger(__name__)


def draw_run_figures(run: RunDirectory, data_root: Path | None = None) -> list[Path]:
    """Draw every figure of a run into its folder `figures`, each as PNG and PDF.

    `learning_curves`, and those of `_drawings` for each part of the predictions; with pictures
    where the images are. A figure that cannot be drawn is a line of log that names it: no run is
    lost to a figure. The images are in the folder `data_root`; None: where the run had them.

    Returns the paths of the PNGs; a SkinlesionError if config or predictions are missing or wrong.
    """
    paths, drawings = [], dict(_drawings(run, data_root))
    for name, draw in tqdm(drawings.items(), "figures", unit="figure", leave=False, disable=None):
        try:
            paths.append(save(draw(), run.figures / f"{name}.png"))
        except Exception as error:
            log.warning("%s is not drawn: %s", name, " ".join(str(error).split()))
    return paths


def outdated(run: RunDirectory) -> bool:
    """Return whether a finished run has no figures, not all, or older ones than its predictions."""
    last = "per_class_f1_*" if run.values.get("head") else LAST
    drawn = [path.stat().st_mtime for path in run.figures.glob(f"{last}.png")]
    return not drawn or min(drawn) < run.predictions.stat().st_mtime


def _drawings(
    run: RunDirectory, data_root: Path | None
) -> Iterator[tuple[str, Callable[[], Figure]]]:
    """Yield each figure's name and how it is drawn."""
    config, predictions = run.config, read_predictions(run.predictions)
    parts = {name: Measured(predictions.part(name)) for name in predictions.splits}
    temperature, fitted_on = None, ""
    if (val := parts.get("val")) is not None:
        temperature = fit_temperature(val.y, val.probabilities)
        fitted_on = f"the {counted(len(val.y), 'image')} of the validation part"
    try:
        images = open_run_images(config, data_root)
    except SkinlesionError as error:
        elsewhere = "With the folder of its images: skinlesion figures RUN --data FOLDER"
        log.warning("mistakes and attention are not drawn: %s. %s", error, elsewhere)
        images = None
    row, published = quality.published_row(config, predictions.classes)
    for name, part in parts.items():
        about = _about(config, part)
        on = f"{fitted_on}, these very images" if name == "val" else fitted_on
        yield f"confusion_matrix_{name}", partial(quality.confusion_matrix, part, about)
        yield f"roc_{name}", partial(quality.roc, part, about)
        yield f"precision_recall_{name}", partial(quality.precision_recall, part, about)
        yield f"reliability_{name}", partial(quality.reliability, part, about, temperature, on)
        yield f"risk_coverage_{name}", partial(quality.risk_coverage, part, about)
        yield f"per_class_f1_{name}", partial(quality.per_class_f1, part, about, row, published)
        if images is not None:
            yield f"mistakes_{name}", partial(gallery.mistakes, part, about, images)
            if run.best.exists():
                yield f"attention_{name}", partial(_attention, run, part, about, images)
    if not config.get("head"):  # which has no epochs
        yield LAST, lambda: learning_curves(read_history(run.history), config, _about(config))


def _about(config: DictConfig, part: Measured | None = None) -> str:
    """Return which run it is, and the part and its size: the line under a title."""
    backbone, by = (OmegaConf.select(config, key) for key in ("backbone.name", "split.by"))
    split = "official split" if OmegaConf.select(config, "data.test") else f"split by {by}"
    run = f"{backbone}, seed {config.seed}, {split}"
    if part is None:
        return run
    name = {"val": "validation"}.get(part.name, part.name)
    size = f"{counted(len(part.y), 'image')} of {counted(part.lesions, 'lesion')}"
    role = SELECTED["test"] if config.get("head") else part.role
    return f"{run} · {name} part, which {role}: {size}"


def _attention(run: RunDirectory, part: Measured, about: str, images: RunImages) -> Figure:
    from skinlesion.serving.attention import explain  # torch, for this figure alone
    from skinlesion.serving.model import load_run

    model = load_run(run.path)
    return gallery.class_panel(
        part, about, lambda i: explain(model, images.pixels(i), images.metadata(i))
    )
