"""A part of six images that can be worked out by hand, and a run made of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from omegaconf import OmegaConf

from skinlesion.data.run_images import RunImages, open_run_images
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.directory import HISTORY, RunDirectory, write_history
from skinlesion.runs.predictions import Predictions, write_predictions

CLASSES = ("akiec", "bcc", "nv")
Y = np.array([0, 0, 1, 1, 2, 2])
# Right but for the second, which is taken for bcc, and the last, for akiec; both with 0.5.
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.2, 0.5, 0.3],
        [0.1, 0.8, 0.1],
        [0.3, 0.6, 0.1],
        [0.1, 0.1, 0.8],
        [0.5, 0.1, 0.4],
    ]
)
CONFIG = {
    "seed": 3,
    "dropout": 0.5,
    "augment": None,
    "backbone": {"name": "mobilenet_v2"},
    "metadata": {"name": "paper"},
    "split": {"by": "lesion"},
    "loss": {"weight": "balanced", "weigh_validation": False},
    "callbacks": {"best": {"monitor": "val_accuracy", "mode": "max"}},
    "data": {"demo": None},
    "machine": {"data": None},
}


def part_of(
    y: Any = Y, p: Any = PROBABILITIES, classes: Any = CLASSES, split: str = "val", ids: Any = None
) -> Measured:
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


def history_of(epochs: int, **columns: Any) -> pd.DataFrame:
    values = {name: np.linspace(0.3, 0.9, epochs) for name in HISTORY}
    values |= {"epoch": np.arange(epochs) + 1, "lr": np.full(epochs, 1e-3)}
    return pd.DataFrame(values).assign(**columns)


def config_of(**changes: Any) -> Any:
    return OmegaConf.merge(CONFIG, changes)


def data_config(root: Path | None) -> Any:
    """The config of a run on HAM10000 whose images are in a folder."""
    declared = OmegaConf.load(Path(__file__).parents[3] / "conf" / "data" / "ham10000.yaml")
    return config_of(data=declared.data, machine={"data": root and str(root)})


def make_run(path: Path, config: Any, *parts: Measured) -> RunDirectory:
    path.mkdir(parents=True)
    OmegaConf.save(config, path / "config.yaml")
    frame = pd.concat([part.predictions.frame for part in parts])
    write_predictions(frame, path / "predictions.csv")
    write_history(history_of(4).to_dict("records"), path / "history.csv")
    return RunDirectory(path)


def written(figure: Figure) -> str:
    """Every text of a figure, on one line."""
    texts = figure.findobj(Text)
    return " ".join(" ".join(text.get_text() for text in texts if text.get_visible()).split())


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(im.get_array()) for axes in figure.axes for im in axes.get_images()]


@pytest.fixture(scope="session")
def images(archive: Path) -> RunImages:
    return open_run_images(data_config(archive))


@pytest.fixture(scope="session")
def ids(images: RunImages) -> list[str]:
    return images.table.index[:6].tolist()
