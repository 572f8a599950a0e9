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
EPOCHS = 5
KILLS = int(os.environ.get("KILLS", "2"))

pytestmark = pytest.mark.real


def start(folder: Path, temporary: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [
            *(sys.executable, "train.py", "data=demo", "data.demo.images=100", "weights=none"),
            *("preprocess=paper", "backbone=mobilenet_v3_small", "backbone.input_size=64"),
            *(
                f"trainer.max_epochs={EPOCHS}",
                "augment=datta",
                "machine.workers=1",
                "machine.device=cpu",
            ),
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
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody killed; it draws the images first."""
    folder = tmp_path_factory.mktemp("kills") / "whole"
    assert start(folder, folder.parent).wait() == 0
    return folder


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_run_killed_at_a_random_moment_is_the_one_that_was_not(whole: Path, kill: int) -> None:
    folder, draw = whole.with_name(f"killed{kill}"), random.Random(kill)
    elsewhere = SHARED_MEMORY if SHARED_MEMORY.is_dir() else whole.parent
    with tempfile.TemporaryDirectory(dir=elsewhere) as temporary:
        process = start(folder, Path(temporary))
        epochs, moment = draw.randrange(EPOCHS), draw.uniform(0, 1)  # seconds; two epochs or so
        while lines(folder) < 1 + epochs and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moment)
        process.kill()
        process.wait()
        assert start(folder, Path(temporary)).wait() == 0
        assert not [*Path(temporary).rglob("*.ckpt")]
    predictions, history = result(folder)
    assert predictions == result(whole)[0]
    pd.testing.assert_frame_equal(history, result(whole)[1])
    assert not [*folder.rglob("*.tmp")]


def lines(folder: Path) -> int:
    """Of the history; 1 once the run's folder is there."""
    histories = [*folder.glob("*/*/*/history.csv")]
    if histories:
        return histories[0].read_text().count("\n")
    return len([*folder.glob("*/*/*/provenance.json")])
