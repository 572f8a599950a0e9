"""A sweep as a person runs it: killed once, started again, looked at, printed."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from skinlesion.cli import main
from skinlesion.runs.directory import RunDirectory, find_runs, identity
from skinlesion.sweeps.jobs import read_sweep
from skinlesion.sweeps.status import summary, sweep_status

ROOT = Path(__file__).parents[2]
MINI = """\
defaults: [/config, _self_]
sweep:
  title: Two mobile nets on drawn images
  table: 4
  axes:
    experiment: {md_mobilenet_v3_small: MobileNetV3Small, md_mobilenet_v2: MobileNetV2}
    seed: [0, 1]
  columns: {accuracy: accuracy}
"""


def start(*arguments):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, "train.py", *arguments], cwd=ROOT, **streams)


def output_of(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Sweep:
    """The mini sweep in a folder of its own."""

    def __init__(self, folder, tiny_job):
        self.file, self.runs = folder / "sweeps" / "mini.yaml", folder / "runs"
        self.file.parent.mkdir()
        self.file.write_text(MINI)
        words = tiny_job[1:]  # the experiments choose the backbone
        self.overrides = [*words, "batch_size=16", f"machine.runs={self.runs}"]
        self.command = ["-cd", str(self.file.parent), "-cn", "mini", "-m", *self.overrides]

    def read(self):
        return read_sweep(str(self.file), self.overrides)

    def directories(self):
        """The run directories in the order of the jobs, as far as they were begun."""
        found, _ = find_runs(self.runs)
        return [d for job in self.read().jobs for d in found.get(identity(job.config), [])]

    def states(self):
        return [status.state for status in sweep_status(self.read())]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, tiny_job):
    return Sweep(tmp_path_factory.mktemp("mini"), tiny_job)


@pytest.fixture(scope="module")
def killed(sweep):
    """The sweep, killed within its second run: what its status said."""
    assert sweep.states() == ["left"] * 4
    process = start(*sweep.command)
    started = "*/*/seed1/checkpoints/last.ckpt"
    wait_for(lambda: bool([*sweep.runs.glob(started)]), process)
    process.send_signal(signal.SIGSTOP)
    running = sweep.states()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    first, second = sweep.directories()
    return {
        "running": running,
        "killed": sweep.states(),
        "summary": summary(sweep.read(), sweep_status(sweep.read())),
        "first": first.done.stat().st_mtime_ns,
        "second": (second.last.exists(), second.done.exists()),
    }


@pytest.fixture(scope="module")
def resumed(sweep, killed):
    return output_of(start(*sweep.command))


def test_status_tells_what_is_done_running_cut_and_left(killed):
    assert killed["running"] == ["done", "running", "left", "left"]
    assert killed["killed"] == ["done", "cut", "left", "left"]
    lines = str(killed["summary"]).splitlines()
    assert lines[0] == "Two mobile nets on drawn images: 4 runs"
    assert re.match(r"done +2 epochs +0:00:\d\d +MobileNetV3Small · seed 0", lines[1])
    assert lines[-2] == "1 done, 1 cut, 2 left"
    assert re.match(r"about 0:00:\d\d of training is left", lines[-1])


def test_started_again_it_trains_only_what_is_missing(sweep, killed, resumed):
    assert killed["second"] == (True, False)
    summary = resumed.splitlines()[-5:]
    assert [line.split()[0] for line in summary[:4]] == ["skipped", "done", "done", "done"]
    assert summary[4] == "4 jobs: 3 done (trained now), 1 skipped (was done before)"
    assert sweep.directories()[0].done.stat().st_mtime_ns == killed["first"]
    assert sweep.states() == ["done"] * 4


def test_the_run_that_was_cut_went_on_where_it_was(sweep, resumed):
    second = sweep.directories()[1]
    assert len(second.read_json("provenance.json")["commits"]) == 2
    assert second.history.read_text().count("\n") == 1 + 2


def test_its_table_shows_what_its_runs_measured(sweep, resumed, tmp_path, capsys):
    main(["tables", str(sweep.file), "--out", str(tmp_path), *sweep.overrides])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("mini.md", "mini.csv", "mini.tex", "index.html")
    }
    table = (tmp_path / "mini.md").read_text()
    measured = [d.read_json("metrics.json")["parts"]["val"] for d in sweep.directories()]
    for name, runs in (("MobileNetV3Small", measured[:2]), ("MobileNetV2", measured[2:])):
        (row,) = [line for line in table.splitlines() if line.startswith(f"| {name}†")]
        assert f"{sum(run['accuracy'] for run in runs) / 2:.3f}" in row
        assert f"2 x {runs[0]['n']}" in row


def test_two_processes_train_two_runs_by_joblib(sweep, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = start(
        *(*sweep.command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        *("seed=0", "debug=fast", f"machine.runs={tmp_path}"),
    )
    assert output_of(process).splitlines()[-1] == "2 jobs: 2 done (trained now)"
    assert len([*tmp_path.glob("*/*/*/DONE")]) == 2


def test_a_job_of_a_cluster_goes_on_after_it_was_preempted(sweep, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    process = start(
        *(*sweep.command, "hydra/launcher=submitit_local", "experiment=md_mobilenet_v3_small"),
        *("seed=0", "trainer.max_epochs=5", f"machine.runs={tmp_path}"),
    )
    wait_for(lambda: bool([*tmp_path.glob("*/*/*/checkpoints/last.ckpt")]), process)
    (task,) = tasks_of_submitit(tmp_path)
    os.kill(task, signal.SIGUSR2)  # what SLURM is asked to send before it stops a job
    output_of(process)
    (run,) = (RunDirectory(path.parent) for path in tmp_path.glob("*/*/*/DONE"))
    assert len(run.read_json("provenance.json")["commits"]) == 2
    assert run.history.read_text().count("\n") == 1 + 5


def tasks_of_submitit(folder):
    """The processes at work in a folder of submitit's."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().decode().split("\0")
            if "submitit.core._submit" in words and any(str(folder) in word for word in words):
                found.append(int(path.parent.name))
    return found
