"""What a run costs besides training: imports, building, checking, opening, writing; and its tables.

The stages are those of `skinlesion.training.run` itself, whose functions are watched in a fresh
process while it trains a single step.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from skinlesion.bench.results import Measurement, Rows
from skinlesion.bench.setting import Setting
from skinlesion.errors import SkinlesionError
from skinlesion.runs.history import COLUMNS, write_history
from skinlesion.runs.predictions import write_predictions
from skinlesion.sweeps.jobs import Job, read_sweep
from skinlesion.runs.directory import RunDirectory, identity

REPEATS = 3
ASKED = 5.0  # seconds that a run may cost besides training
ONE_STEP = (
    *("trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"),
    "trainer.limit_predict_batches=1",
)
TABLES = [f"table{number}" for number in range(4, 10)]
IMAGES = 996  # that the paper's protocol reports
# As train.py imports it; first of all, because this module too imports torch.
CHILD = """
import json, sys, time
began = time.perf_counter()
from skinlesion.cli import quick_imports
with quick_imports():
    import skinlesion.training.run
imported = time.perf_counter()
from skinlesion.bench.fixed import watch_run
stages = watch_run(sys.argv[1:])
print(json.dumps([imported - began, stages, time.perf_counter() - began]))
"""


def run(setting: Setting, backbone: str) -> Rows:
    """Return a row for each stage, their sum, and what is drawn and collected afterwards."""
    batch = "batch_size=2"  # training itself is no fixed cost
    setting.samples(setting.job(backbone))  # the cache is there, as for all runs but the first
    repeats = []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as folder:
            words = [*setting.overrides, f"backbone={backbone}", batch, *ONE_STEP, f"runs={folder}"]
            repeats.append(_child(words))
    stages = {name: median(repeat[name] for repeat in repeats) for name in repeats[0]}
    figures = stages.pop("figures, after DONE")
    runs, tables = _tables_seconds()
    return [
        *({"what": name, "seconds": seconds} for name, seconds in stages.items()),
        {"what": "sum", "seconds": sum(stages.values()), "asked": ASKED},
        {"what": "figures, after DONE", "seconds": figures},
        {"what": f"all tables of {runs} runs", "seconds": tables},
    ]


def _child(words: Sequence[str]) -> dict[str, float]:
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True)
    whole = time.perf_counter() - began
    if done.returncode != 0:
        raise SkinlesionError(f"a run of one step failed:\n{done.stderr.strip()}")
    imported, stages, inside = json.loads(done.stdout.splitlines()[-1])
    return {"importing": imported, **stages, "starting and ending Python": whole - inside}


def watch_run(words: Sequence[str]) -> dict[str, float]:
    """Make a run in this process, whose functions are watched from then on.

    Args:
        words: overrides of its config.

    Returns:
        The seconds of each stage.
    """
    from skinlesion.data.samples import CheckedArchive
    from skinlesion.models.backbone import Backbone
    from skinlesion.training import run as training

    began = time.perf_counter()
    config = Setting(tuple(words)).config
    composed = time.perf_counter() - began
    spent: defaultdict[str, float] = defaultdict(float)
    for owner, name in (
        *((training, name) for name in ("build_network", "try_building", "open_archive")),
        *((training, name) for name in ("_train", "write_predictions", "_finish")),
        *((CheckedArchive, "load"), (Backbone, "load")),
    ):
        _watch(owner, name, spent)
    began = time.perf_counter()
    directory = training.run(config)
    whole = time.perf_counter() - began
    began = time.perf_counter()
    from skinlesion.reporting.figures import draw_run_figures

    draw_run_figures(directory)
    drawn = time.perf_counter() - began
    stages = {
        "composing the config": composed,
        "building the network": spent["build_network"] + spent["try_building"],
        "taking its weights": spent["Backbone.load"],
        "checking the archive": spent["open_archive"],
        "opening the cache": spent["CheckedArchive.load"],
        "trainer, one step each of training, validation, prediction": spent["_train"]
        - spent["write_predictions"],
        "predictions, metrics, DONE": spent["write_predictions"] + spent["_finish"],
    }
    stages["the rest of the run"] = composed + whole - sum(stages.values())
    return {**stages, "figures, after DONE": drawn}


def _watch(owner: Any, name: str, spent: defaultdict[str, float]) -> None:
    """Let a function, or a method of a class, add up the seconds that it takes."""
    function = getattr(owner, name)
    label = f"{owner.__name__}.{name}" if isinstance(owner, type) else name

    def watched(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[label] += time.perf_counter() - began

    setattr(owner, name, watched)


def _tables_seconds() -> tuple[int, float]:
    """Return how many made-up runs the paper's tables were written of, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        runs = make_runs(Path(folder), TABLES, IMAGES)
        command = [sys.executable, "-m", "skinlesion.reporting", "tables", f"runs={folder}"]
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        return runs, time.perf_counter() - began


def make_runs(folder: Path, sweeps: Sequence[str], images: int) -> int:
    """Make up a finished run of each job of sweeps, with predictions drawn at random.

    Returns:
        How many.
    """
    jobs = [job for name in sweeps for job in read_sweep(name, [f"runs={folder}"]).jobs]
    different = {identity(job.config): job for job in jobs}
    for name, job in different.items():
        make_run(folder / job.config.backbone.name / name[:10] / f"seed{job.seed}", job, images)
    return len(different)


def make_run(path: Path, job: Job, images: int) -> None:
    """Make up a finished run of a job, two images a lesion."""
    classes = list(job.config.data.classes)
    part = "test" if job.config.split.test_fraction else "val"
    rng = np.random.default_rng(job.seed)
    label = rng.permutation(np.arange(images) % len(classes))
    known = {
        "image_id": [f"i{i}" for i in range(images)],
        "lesion_id": [f"l{i // 2}" for i in range(images)],
        "split": part,
        "label": [classes[i] for i in label],
    }
    drawn = rng.dirichlet(np.ones(len(classes)), images)
    leak = {part: {"images": images, "leaked": 0, "share": 0.0}}
    made = {
        **{
            "commit": "",
            "dirty": False,
            "data": "made up",
            "weights": "none",
            "cpu": "",
            "gpu": None,
        },
        **{"epochs": 1, "parameters": 1, "seconds_per_epoch": 1.0},
    }
    directory = RunDirectory(path)
    write_predictions(
        pd.DataFrame(known).join(pd.DataFrame(drawn, columns=classes)), directory.predictions
    )
    directory.write_text("config.yaml", OmegaConf.to_yaml(job.config, resolve=True))
    directory.write_json("metrics.json", {"leak": leak})
    directory.write_json("provenance.json", made)
    write_history([dict.fromkeys(COLUMNS, 1.0)], directory.history)
    directory.write_text("DONE", "")


MEASUREMENT = Measurement(
    name="fixed",
    title="What a run costs besides training",
    how=f"Seconds of each stage of a run of one step in a fresh process, median of {REPEATS}, the "
    "image cache being there; and, once, of writing the paper's tables of made-up runs of "
    f"{IMAGES} images each.",
    columns={"what": "what", "seconds": "seconds", "asked": "asked for"},
    each=False,
    run=run,
)
