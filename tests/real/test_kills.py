"""A run killed at a random moment, then started again, is the run that was not killed.

`make test-real` kills two; for thirty: KILLS=30 make test-real ARGS="-k killed".
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")  # another file system than the run's
KILLS = int(os.environ.get("KILLS", "2"))

pytestmark = pytest.mark.real


def start(folder: Path, temporary: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "train.py", "data=demo", "data.demo.images=100", "weights=none"),
            *("preprocess=paper", "backbone=mobilenet_v3_small", "backbone.input_size=64"),
            *("trainer.max_epochs=4", "augment=datta", "machine.workers=1", "machine.device=cpu"),
            *(f"machine.data={folder.parent / 'demo'}", f"machine.cache={folder.parent / 'cache'}"),
            f"machine.runs={folder}",
        ],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def result(folder: Path) -> tuple[bytes, pd.DataFrame]:
    (done,) = folder.glob("*/*/*/DONE")
    history = pd.read_csv(done.parent / "history.csv").drop(columns="seconds")
    return (done.parent / "predictions.csv").read_bytes(), history


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Runs that nobody killed: their folder, and how many seconds one takes."""
    folder = tmp_path_factory.mktemp("kills") / "whole"
    assert start(folder, folder.parent).wait() == 0  # which draws the images first
    begun, again = time.monotonic(), folder.with_name("again")
    assert start(again, folder.parent).wait() == 0
    return folder, time.monotonic() - begun


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_run_killed_at_a_random_moment_is_the_one_that_was_not(
    whole: tuple[Path, float], kill: int
) -> None:
    expected, seconds = whole
    folder = expected.with_name(f"killed{kill}")
    elsewhere = SHARED_MEMORY if SHARED_MEMORY.is_dir() else expected.parent
    with tempfile.TemporaryDirectory(dir=elsewhere) as temporary:
        process = start(folder, Path(temporary))
        # Before two fifths of the time nothing but imports has been done.
        time.sleep(seconds * random.Random(kill).uniform(0.4, 1.0))
        process.kill()
        process.wait()
        assert start(folder, Path(temporary)).wait() == 0
        assert not [*Path(temporary).rglob("*.ckpt")]
    predictions, history = result(folder)
    assert predictions == result(expected)[0]
    pd.testing.assert_frame_equal(history, result(expected)[1])
    assert not [*folder.rglob("*.tmp")]
