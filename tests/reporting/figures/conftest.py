"""A part of six images that can be worked out by hand, and runs made of it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import DictConfig, OmegaConf

from skinlesion.runs.history import COLUMNS as HISTORY
from skinlesion.runs.predictions import COLUMNS, Predictions, write_predictions
from skinlesion.reporting.figures.part import Part
from skinlesion.runs.directory import RunDirectory

CLASSES = ("akiec", "bcc", "nv")
Y = np.array([0, 0, 1, 1, 2, 2])
# Right but for the second, told bcc, and the last, told akiec; both with 0.5.
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
}


def predictions_of(y=Y, probabilities=PROBABILITIES, classes=CLASSES, split="val", ids=None):
    """Predictions of one split, two images a lesion."""
    frame = pd.DataFrame(
        {
            "image_id": ids if ids is not None else [f"image{i}" for i in range(len(y))],
            "lesion_id": [f"lesion{i // 2}" for i in range(len(y))],
            "split": split,
            "label": np.array(classes)[y],
        }
    )
    return Predictions(frame.join(pd.DataFrame(probabilities, columns=list(classes))), classes)


def part_of(*args, **kwargs) -> Part:
    predictions = predictions_of(*args, **kwargs)
    return Part(predictions.splits[0], "a run", predictions)


def history_of(epochs: int) -> pd.DataFrame:
    values = {
        "epoch": np.arange(epochs) + 1,
        "train_loss": np.linspace(2, 1, epochs),
        "train_accuracy": np.linspace(0.3, 0.9, epochs),
        "val_loss": np.linspace(0.9, 0.7, epochs),
        "val_accuracy": np.linspace(0.3, 0.7, epochs),
        "val_balanced_accuracy": np.linspace(0.2, 0.5, epochs),
        "lr": 1e-3,
        "seconds": 10.0,
    }
    return pd.DataFrame(values)[list(HISTORY)]


def config_of(**changes) -> DictConfig:
    return OmegaConf.merge(CONFIG, changes)


def data_config(**more) -> DictConfig:
    """The config of a run on HAM10000, collected unless a `root` is named."""
    declared = OmegaConf.load(Path(__file__).parents[3] / "conf" / "data" / "ham10000.yaml")
    for name in ("root", "cache"):
        declared.pop(name)
    return config_of(data={**declared, **more})


def texts(page) -> list[str]:
    """Every text of the page itself: heading, tables, captions, note."""
    return [text.get_text() for text in page.figure.texts]


@pytest.fixture
def make_run(tmp_path: Path):
    """Write a run directory: `make_run(predictions, config, epochs)`."""

    def make(*parts: Predictions, config: DictConfig | None = None, epochs: int = 4):
        path = tmp_path / "runs" / "mobilenet_v2" / "key" / "seed3"
        path.mkdir(parents=True)
        OmegaConf.save(config or config_of(), path / "config.yaml")
        frame = pd.concat([part.frame for part in parts])
        columns = [*COLUMNS, *parts[0].classes]
        write_predictions(frame[columns], path / "predictions.csv")
        history_of(epochs).to_csv(path / "history.csv", index=False)
        return RunDirectory(path)

    return make
