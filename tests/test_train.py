"""The command line as a person meets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def train(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


def message(done: subprocess.CompletedProcess[str]) -> str:
    """What was printed as an error, without the listing of imports."""
    return "\n".join(line for line in done.stderr.splitlines() if "import time:" not in line)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]], ids=lambda a: a[0]
)
def test_asking_for_help_does_not_import_torch(arguments: list[str]) -> None:
    done = train(*arguments, COMP_LINE="train.py backbone=resn", COMP_POINT="22")
    assert done.returncode == 0, message(done)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "pandas", "pytorch_lightning", "numpy"}
    assert "resnet152" in done.stdout or "--cfg" in arguments


def test_a_misspelt_choice_is_answered_with_the_choices() -> None:
    done = train("backbone=resnet5")
    assert done.returncode == 1
    for name in ("resnet50", "densenet201", "nasnet_mobile"):
        assert name in message(done)
    assert "Traceback" not in message(done)


@pytest.mark.parametrize(
    ("override", "answer"),
    [
        ("trainer.max_epoch=3", "Did you mean: trainer.max_epochs"),
        ("backbon=resnet50", "Did you mean: backbone"),
        ("learning_rate=1", "There are: attention, augment, backbone"),
        ("+experiment=demos", "Could not find 'experiment/demos'"),
        ("seed=[", "error: "),
    ],
)
def test_a_misspelt_override_is_answered_with_what_exists(override: str, answer: str) -> None:
    done = train(override)
    assert done.returncode == 1
    assert answer in message(done)
    assert "Traceback" not in message(done)


@pytest.mark.parametrize("override", ["experiment=as_released", "+experiment=as_released"])
def test_an_axis_may_be_written_with_a_plus(override: str) -> None:
    done = train(override, "backbone=resnet152", "--cfg", "job", "--resolve")
    assert done.returncode == 0, message(done)
    assert "batch_size: 10" in done.stdout
    assert "val_fraction: 0.15" in done.stdout


def test_a_missing_archive_is_one_message() -> None:
    done = train("machine.data=absent")
    assert done.returncode == 1
    assert message(done).startswith("error: machine.data=absent: no such folder")
    assert "Traceback" not in message(done)


def test_what_cannot_work_is_one_line() -> None:
    done = train("weights=none", "optimizer.eps=0")
    assert done.returncode == 1
    (line,) = message(done).splitlines()
    assert line.startswith("error: optimizer: ")
    assert "eps=0: expected a number above 0" in line


def test_a_job_that_cannot_work_does_not_stop_a_sweep(tmp_path: Path) -> None:
    done = train(
        *("-m", "optimizer.eps=0,0.1", "data=demo", "data.demo.images=100", "debug=fast"),
        *("weights=none", "preprocess=paper", "backbone=mobilenet_v3_small"),
        *("backbone.input_size=64", "machine.device=cpu", f"machine.data={tmp_path / 'demo'}"),
        *(f"machine.cache={tmp_path / 'cache'}", f"machine.runs={tmp_path / 'runs'}"),
    )
    assert done.returncode == 1
    assert len(list((tmp_path / "runs").glob("*/*/*/DONE"))) == 1
    *_, failed, why, trained, counts, advice = done.stdout.splitlines()
    assert failed.startswith("failed")
    assert failed.endswith("optimizer.eps=0")
    assert "eps=0: expected a number above 0" in why
    assert trained.startswith("done")
    assert counts == "2 jobs: 1 done (trained now), 1 failed (see why)"
    assert advice == "The same command again goes on with what is missing."


def test_what_exists_depends_on_what_was_chosen() -> None:
    done = train("attention=released", "attention.gamma=1")
    assert "Did you mean: attention.name" in message(done)
    assert "There are: attention.maps, attention.name" in message(done)


def test_the_root_of_the_data_comes_from_the_environment() -> None:
    done = train("--cfg", "job", "--resolve", HAM10000_ROOT="/somewhere/else")
    assert "data: /somewhere/else" in done.stdout
