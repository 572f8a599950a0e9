"""A part of six images that can be worked out by hand, and a run made of it."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from matplotlib.text import Text
from omegaconf import OmegaConf

from skinlesion.data.run_images import open_run_images
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.directory import HISTORY, RunDirectory, write_history
from skinlesion.runs.predictions import Predictions, write_predictions

KINDS = (
    "confusion_matrix",
    "roc",
    "precision_recall",
    "reliability",
    "risk_coverage",
    "per_class_f1",
)
CLASSES = ("akiec", "bcc", "nv")
Y = np.array([0, 0, 1, 1, 2, 2])
# Right but for the second, which is taken for bcc, and the last, for akiec; both with 0.5.
PROBABILITIES = np.array([[8, 1, 1], [2, 5, 3], [1, 8, 1], [3, 6, 1], [1, 1, 8], [5, 1, 4]]) / 10


def part_of(y=Y, p=PROBABILITIES, classes=CLASSES, split="val", ids=None):
    """A part with two images a lesion."""
    frame = pd.DataFrame(
        {
            "image_id": [f"image{i}" for i in range(len(y))] if ids is None else ids[: len(y)],
            "lesion_id": [f"lesion{i // 2}" for i in range(len(y))],
            "split": split,
            "label": np.array(classes)[y],
        }
    )
    return Measured(Predictions(frame.join(pd.DataFrame(p, columns=list(classes))), classes))


def history_of(epochs, **columns):
    values = {name: np.linspace(0.3, 0.9, epochs) for name in HISTORY}
    values |= {"epoch": np.arange(epochs) + 1, "lr": np.full(epochs, 1e-3)}
    return pd.DataFrame(values).assign(**columns)


@cache
def default_config():
    with initialize_config_dir(str(Path(__file__).parents[3] / "conf"), version_base="1.3"):
        composed = compose("config", ["backbone=mobilenet_v2", "seed=3", "split=lesion"])
    return OmegaConf.create(OmegaConf.to_container(composed, resolve=True))


def config_of(root=None, **changes):
    """The config of a run of mobilenet_v2 whose images are in a folder."""
    machine = {"machine": {"data": root and str(root)}}
    return OmegaConf.merge(default_config(), machine, changes)


def make_run(path, config, *parts):
    path.mkdir(parents=True)
    OmegaConf.save(config, path / "config.yaml")
    frame = pd.concat([part.predictions.frame for part in parts])
    write_predictions(frame, path / "predictions.csv")
    write_history(history_of(4).to_dict("records"), path / "history.csv")
    return RunDirectory(path)


def written(figure):
    """Every text of a figure, on one line."""
    texts = figure.findobj(Text)
    return " ".join(" ".join(text.get_text() for text in texts if text.get_visible()).split())


def pictures(figure):
    return [np.asarray(im.get_array()) for axes in figure.axes for im in axes.get_images()]


@pytest.fixture(scope="session")
def images(archive):
    return open_run_images(config_of(archive))
