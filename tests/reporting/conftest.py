"""Made-up runs of a sweep."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from skinlesion.data.ham10000 import CLASSES
from skinlesion.reporting.results import Results
from skinlesion.reporting.tables import build_table
from skinlesion.runs.directory import HISTORY, run_key, write_history
from skinlesion.runs.predictions import write_predictions
from skinlesion.sweeps.jobs import read_sweep

DATA, WEIGHTS = "d" * 64, "e" * 64
read_once = cache(read_sweep)  # composing takes tenths of a second


class Folder:
    """A folder of made-up runs of a sweep's jobs."""

    def __init__(self, path):
        self.path = path

    def sweep(self, name, *overrides):
        return read_once(name, overrides).model_copy(update={"runs": self.path})

    def add(self, job, right=0.8, images=40, key="k", **made):
        """A finished run that classifies a share of the images correctly, two images a lesion."""
        run = self.path / job.config.backbone.name / f"{key}{run_key(job.config, DATA, WEIGHTS)}"
        run = run / f"seed{job.seed}"
        run.mkdir(parents=True)
        (run / "config.yaml").write_text(OmegaConf.to_yaml(job.config, resolve=True))
        part = "test" if job.config.split.name == "lesion" else "val"
        y = np.arange(images) % len(CLASSES)
        answer = np.where(np.arange(images) < round(right * images), y, (y + 1) % len(CLASSES))
        probabilities = np.full((images, len(CLASSES)), 0.05)
        probabilities[np.arange(images), answer] = 0.7
        frame = pd.DataFrame(
            {
                "image_id": [f"i{i}" for i in range(images)],
                "lesion_id": [f"l{job.seed}-{i // 2}" for i in range(images)],
                "split": part,
                "label": [CLASSES[i] for i in y],
            }
        ).join(pd.DataFrame(probabilities, columns=list(CLASSES)))
        # What another part says must not be read.
        selecting = frame.assign(split="val") if part == "test" else frame.iloc[:0]
        write_predictions(pd.concat([selecting, frame]), run / "predictions.csv")
        leak = {part: {"images": images, "leaked": images // 4, "share": 0.25}}
        (run / "metrics.json").write_text(json.dumps({"leak": leak}))
        provenance = {
            **{"commit": "c" * 40, "dirty": False, "data": DATA, "weights": WEIGHTS},
            **{"gpu": None, "cpu": "a processor", "epochs": 12, "parameters": 1_234_567},
            **{"seconds_per_epoch": 30.0, "packages": {"torch": "2.6"}, "training_seconds": 360.0},
            **made,
        }
        (run / "provenance.json").write_text(json.dumps(provenance))
        write_history([dict.fromkeys(HISTORY, 1.0)], run / "history.csv")
        (run / "DONE").touch()
        return run

    def table(self, sweep):
        return build_table(sweep, Results(self.path, [sweep]))


def draw(directory, data=None):
    """Stand in for the figures, which have tests of their own."""
    directory.figures.mkdir(exist_ok=True)
    paths = [directory.figures / f"{name}.png" for name in ("learning_curves", "roc_val")]
    for path in paths:
        Image.new("RGB", (60, 40), "orange").save(path)
    return paths


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "runs")
