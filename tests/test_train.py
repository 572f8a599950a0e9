"""The command line as a person meets it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def train(*arguments, python=(), **environment):
    command = [sys.executable, *python, "train.py", *arguments]
    streams = {"capture_output": True, "text": True}
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, **streams)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]], ids=lambda a: a[0]
)
def test_asking_for_help_does_not_import_torch(arguments):
    typed = {"COMP_LINE": "train.py backbone=resn", "COMP_POINT": "22"}
    done = train(*arguments, python=["-X", "importtime"], **typed)
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert not imported & {"torch", "pandas", "pytorch_lightning", "numpy"}
    assert "resnet152" in done.stdout or "--cfg" in arguments


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        ("backbone=resnet5", "(?s)(?=.*densenet201)(?=.*nasnet_mobile).*resnet50"),
        ("trainer.max_epoch=3", r"Did you mean: trainer\.max_epochs"),
        ("backbon=resnet50", "Did you mean: backbone"),
        ("learning_rate=1", "There are: attention, augment, backbone"),
        ("+experiment=demos", "Could not find 'experiment/demos'"),
        ("seed=[", "error: "),
        # What exists depends on what was chosen.
        ("attention=released attention.gamma=1", "There are: attention.maps, attention.name"),
        ("-cd sweeps -cn table10", "is a sweep of many runs: add -m"),
        ("machine.data=absent", r"\Aerror: machine\.data=absent: no such folder"),
    ],
)
def test_what_cannot_work_is_answered_with_what_could(overrides, answer):
    done = train(*overrides.split())
    assert done.returncode == 1
    assert re.search(answer, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_cannot_work_does_not_stop_a_sweep(tmp_path):
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
