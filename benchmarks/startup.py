"""What a run takes besides training."""

import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.setting import Rows, Setting, Step
from benchmarks.timing import python

LIMITS = [f"trainer.limit_{what}_batches=1" for what in ("train", "val", "predict")]


def run(setting: Setting, backbone: str) -> Rows:
    """Start train.py time and again."""
    Step(setting.job(backbone))  # fills the cache
    measured = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as runs:
            short = ("batch_size=2", "trainer.max_epochs=1", f"machine.runs={runs}", *LIMITS)
            began = time.time()
            python("train.py", "--help")
            helped = time.time()
            python("train.py", *setting.words(backbone, *short))
            ended = time.time()
            (done,) = (path.stat().st_mtime for path in Path(runs).rglob("DONE"))
        measured.append((helped - began, done - helped, ended - done))
    names = ("train.py --help", "a run of one step", "its figures, and the end of Python")
    found = zip(names, zip(*measured, strict=True), strict=True)
    return [{"what": name, "seconds": median(seconds)} for name, seconds in found]
