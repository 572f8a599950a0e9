"""Several runs as one, by the mean of their probabilities or fold by fold."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.metrics import evaluate_file
from skinlesion.runs.directory import RunDirectory
from skinlesion.runs.predictions import COLUMNS, Predictions, read_predictions, write_predictions

SPLITS = "split by lesion, each seed draws its own split unless all are trained with one split.seed"


def average(paths: Sequence[Path], out: Path, out_of_fold: bool = False) -> RunDirectory:
    """Write several runs as one, whole or not at all, and return it.

    Its config is the first run's with the node `average`, which names the members: no job has such
    a node, so that no table takes it for a single run. It has no weights.

    Args:
        paths: two or more finished runs, of the same data, classes and protocol.
        out: a directory that is not there yet.
        out_of_fold: False: the mean of the probabilities of the same images. True: the reported
            parts of all folds of one split, each image once.

    Raises:
        SkinlesionError: saying what keeps these runs from being one.
    """
    runs = [RunDirectory(path) for path in paths]
    if unfinished := [str(run.path) for run in runs if not run.done.exists()]:
        raise SkinlesionError(f"no finished run: {', '.join(unfinished)}")
    if len({run.path.resolve() for run in runs}) < max(2, len(runs)):
        raise SkinlesionError("expected two or more runs that differ")
    if out.exists():
        raise SkinlesionError(f"{out} is there already: name a new directory")
    configs = [run.values for run in runs]  # noqa: PD011, no table
    made = [run.read_json("provenance.json") for run in runs]
    read = [read_predictions(run.predictions) for run in runs]
    for name, values in {
        "data": [about["data"] for about in made],
        "classes": [predictions.classes for predictions in read],
        "protocol": [config["split"]["name"] for config in configs],
    }.items():
        if odd := [str(p) for p, value in zip(paths, values, strict=True) if value != values[0]]:
            raise SkinlesionError(f"{', '.join(odd)}: other {name} than {paths[0]}")
    if out_of_fold:
        frame = _folds([config["split"] for config in configs], runs, read)
    else:
        frame = _mean(paths, read)
    members = ["/".join(run.path.resolve().parts[-3:]) for run in runs]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        new = RunDirectory(Path(folder) / "run")
        new.path.mkdir()
        write_predictions(frame, new.predictions)
        how = {"average": {"of": "folds" if out_of_fold else "mean", "members": members}}
        new.write_text("config.yaml", yaml.safe_dump(configs[0] | how, sort_keys=False))
        new.write_text("split.csv", frame[[*COLUMNS]].to_csv(index=False))
        leak = {} if out_of_fold else runs[0].read_json("metrics.json")["leak"]
        parts = evaluate_file(new.predictions)
        about = {"protocol": configs[0]["split"]["name"], "parts": parts, "leak": leak}
        new.write_json("metrics.json", about)
        new.write_json("provenance.json", made[0] | {"members": members})
        new.write_text("history.csv", runs[0].history.read_text(encoding="utf-8"))
        new.write_text("DONE", "")
        os.replace(new.path, out)
    return RunDirectory(out)


def _mean(paths: Sequence[Path], read: Sequence[Predictions]) -> pd.DataFrame:
    ordered = [
        one.frame.sort_values(["split", "image_id"], ascending=[False, True], ignore_index=True)
        for one in read
    ]
    first, classes = ordered[0], [*read[0].classes]
    for path, frame in zip(paths, ordered, strict=True):
        if not frame[[*COLUMNS]].equals(first[[*COLUMNS]]):
            raise SkinlesionError(f"{path}: other images or parts than {paths[0]}; {SPLITS}")
    mean = np.mean([frame[classes].to_numpy() for frame in ordered], axis=0)
    return first[[*COLUMNS]].join(pd.DataFrame(mean, columns=classes))


def _folds(
    splits: Sequence[Any], runs: Sequence[RunDirectory], read: Sequence[Predictions]
) -> pd.DataFrame:
    found = sorted((split["folds"] or 0, split["fold"]) for split in splits)
    alike = {run.identity_but("split.fold") for run in runs}
    if found != [(len(runs), fold) for fold in range(len(runs))] or len(alike) > 1:
        raise SkinlesionError(
            f"folds {found} (of how many, which): expected every fold of one split.folds, in runs "
            "that differ in split.fold alone"
        )
    return pd.concat([one.part(one.reported).frame for one in read], ignore_index=True)
