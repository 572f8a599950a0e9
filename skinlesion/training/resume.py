"""Where a run goes on that was cut, and whether its split is still the one it was begun with."""

import logging
from pathlib import Path

import pandas as pd
import torch

from skinlesion.data.samples import Samples
from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunDirectory

log = logging.getLogger(__name__)


def newest_checkpoint(directory: RunDirectory) -> Path | None:
    """Return where the run goes on: the last epoch, else the best, else None for the start."""
    problems = {path: _problem(path) for path in (directory.last, directory.best)}
    readable = [path for path, problem in problems.items() if problem is None]
    # Without the best checkpoint so far, what follows could not be compared with it.
    resume = readable[0] if directory.best in readable else None
    for path, problem in problems.items():
        if problem and any(p.exists() for p in problems):
            where = "the start" if resume is None else resume.name
            log.warning("%s cannot be read: %s. Going on from %s.", path, problem, where)
    return resume


def _problem(path: Path) -> str | None:
    """Return why a run cannot go on from a checkpoint."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        absent = {"epoch", "state_dict", "optimizer_states", "callbacks"} - checkpoint.keys()
    except Exception as error:  # whatever torch, zip or pickle say of a damaged file
        return str(error).partition("\n")[0] or type(error).__name__
    return f"it lacks {', '.join(sorted(absent))}" if absent else None


def write_split(samples: Samples, directory: RunDirectory) -> None:
    """Write the split, or check it against the one that the run was begun with."""
    drawn = ["image_id", "lesion_id", "dx", "split"]  # older releases wrote no more
    path, begun = directory.path / "split.csv", samples.frame
    if directory.last.exists() and path.exists():
        begun = pd.read_csv(path, dtype=str, keep_default_na=False)
    if begun.reindex(columns=drawn).to_csv() != samples.frame[drawn].to_csv():
        raise SkinlesionError(
            f"{path} was drawn otherwise than now, probably by another release: this run cannot be "
            "resumed. machine.force=true starts it again."
        )
    whole = samples.frame[[*drawn, *samples.encoder.properties]]
    directory.write_text("split.csv", whole.to_csv(index=False))
