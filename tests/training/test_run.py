"""One run: what it leaves, how it goes on after it was cut, and what it refuses."""

import errno
import importlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from skinlesion.data.demo import write_demo
from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunDirectory, RunLocked
from skinlesion.runs.predictions import read_predictions
from skinlesion.training.callbacks import WholeCheckpoints
from skinlesion.training.module import LesionModule
from skinlesion.training.run import run

ROOT = Path(__file__).parents[2]


def probabilities(directory):
    return read_predictions(directory.predictions).probabilities


def test_a_run_leaves_a_complete_directory(trained):
    files = {str(p.relative_to(trained.path)) for p in trained.path.rglob("*") if p.is_file()}
    assert files == {
        *("config.yaml", "split.csv", "predictions.csv", "metrics.json", "history.csv"),
        *("provenance.json", "DONE", ".lock", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    }
    assert (trained.path.parts[-3], trained.path.name) == ("mobilenet_v3_small", "seed0")
    metrics = trained.read_json("metrics.json")
    assert metrics["protocol"] == "paper"
    assert list(metrics["parts"]) == ["val"]
    split = pd.read_csv(trained.path / "split.csv")
    assert metrics["parts"]["val"]["n"] == (split["split"] == "val").sum()
    provenance = trained.read_json("provenance.json")
    assert provenance["epochs"] == 2
    assert set(provenance) > {"commit", "dirty", "packages", "cpu", "data", "weights", "compute"}
    assert "${" not in (trained.path / "config.yaml").read_text()


def test_the_lesion_protocol_reports_a_test_part_that_leaks_nothing(config):
    directory = run(config("split=lesion", "debug=fast"))
    metrics = directory.read_json("metrics.json")
    assert list(metrics["parts"]) == ["val", "test"]
    assert {part: leak["leaked"] for part, leak in metrics["leak"].items()} == {"val": 0, "test": 0}
    assert read_predictions(directory.predictions).reported == "test"


def test_the_same_command_again_finds_that_it_is_done(config, finished, caplog):
    before = finished.last.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        assert run(config()).path == finished.path
    assert finished.last.stat().st_mtime_ns == before
    assert "is done; machine.force=true" in caplog.text
    assert run(config("machine.force=true", "trainer.max_epochs=2")).path == finished.path
    assert finished.last.stat().st_mtime_ns > before


def test_the_same_images_elsewhere_are_the_same_run_and_others_another(config, archive, tmp_path):
    def key(*overrides):
        return run(config("debug=fast", *overrides)).path.parent.name

    elsewhere = shutil.copytree(archive, tmp_path / "copy")
    other = write_demo(tmp_path / "other", images=80, size=(100, 75), progress=False)
    same = key()
    assert key("seed=1", f"machine.data={elsewhere}", "machine.workers=1", "machine=plain") == same
    assert len({same, key(f"machine.data={other}"), key("data.limit=40")}) == 3


# --- cut, and gone on ------------------------------------------------------------------------


PLATEAU = "augment=datta scheduler.patience=0 scheduler.threshold=9 teacher=mean teacher.start=0"
STEPS = (
    "augment=cutout sampler=balanced scheduler=multistep scheduler.milestones=[2] "
    "scheduler.gamma=0.2 loss=mwnl_cumulative loss.schedule.from=0 loss.schedule.to=2 "
    "teacher=crckd teacher.start=1 "
    "+backbone.drop_block={after:[blocks.4.1.drop_path],size:1,probability:0.5,ramp:9}"
)


@pytest.mark.parametrize("workers", [0, 1])  # which fetch batches before the epoch has begun
@pytest.mark.parametrize("choices", [PLATEAU, STEPS])
def test_a_resumed_run_equals_an_uninterrupted_one(config, tmp_path, workers, choices):
    # A scheduler that reduces after every epoch shows whether its step is lost on resuming.
    recipe = [*choices.split(), f"machine.workers={workers}"]
    whole = run(config(*recipe, "trainer.max_epochs=3"))
    cut = config(*recipe, "trainer.max_epochs=3", f"machine.runs={tmp_path / 'cut'}")
    directory = RunDirectory(tmp_path / "cut" / Path(*whole.path.parts[-3:]))
    cut_after(2, cut)
    assert len(pd.read_csv(directory.history)) == 2
    assert not directory.done.exists()
    assert run(cut).path == directory.path

    resumed, expected = pd.read_csv(directory.history), pd.read_csv(whole.history)
    assert resumed["epoch"].tolist() == [1, 2, 3]
    assert expected["lr"].tolist() == pytest.approx([1e-3, 1e-3, 2e-4])
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), expected.drop(columns="seconds"))
    np.testing.assert_array_equal(probabilities(directory), probabilities(whole))


@pytest.mark.parametrize("sweep", [[], ["-m"]], ids=["run", "sweep"])
def test_sigterm_stops_at_once_with_the_line_of_ctrl_c(training, tiny, tmp_path, sweep):
    endless = ["trainer.max_epochs=999", "callbacks.early_stopping.patience=999"]
    with training(*sweep, *tiny, *endless) as process:
        process.terminate()
        _, printed = process.communicate(timeout=60)
    assert process.returncode == 143
    assert printed.splitlines()[-1] == "stopped; the same command goes on where it was cut"
    assert not [*tmp_path.glob("runs/*/*/*/DONE")]


def test_a_run_cut_after_training_only_predicts(config, finished):
    before, weights = finished.history.read_text(), finished.last.stat().st_mtime_ns
    for name in ("DONE", "predictions.csv", "metrics.json"):
        (finished.path / name).unlink()
    assert run(config()).path == finished.path
    assert finished.predictions.exists()
    assert (finished.history.read_text(), finished.last.stat().st_mtime_ns) == (before, weights)


def test_a_run_that_had_stopped_early_is_trained_no_further(config):
    stopping = "callbacks.early_stopping"
    early = ("trainer.max_epochs=9", f"{stopping}.patience=1", f"{stopping}.min_delta=100")
    directory = run(config(*early))
    before = directory.history.read_text()
    assert before.count("\n") == 1 + 2
    directory.done.unlink()
    run(config(*early))
    assert directory.history.read_text() == before


def test_a_moved_run_keeps_its_best_epoch(config, tmp_path):
    cut_after(1, config())
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    directory = run(config(f"machine.runs={tmp_path / 'moved'}"))
    state = torch.load(directory.last, weights_only=True)["callbacks"]
    best = next(s for name, s in state.items() if "val_accuracy" in name)
    history = pd.read_csv(directory.history)
    assert float(best["best_model_score"]) == pytest.approx(history["val_accuracy"].max())
    assert Path(best["best_model_path"]) == directory.best.resolve()


def test_a_checkpoint_is_whole_or_the_one_before(finished, monkeypatch):
    def full(checkpoint, file):
        file.write(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = finished.last.read_bytes()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*last\.ckpt'"):
        WholeCheckpoints().save_checkpoint({}, finished.last)
    assert finished.last.read_bytes() == before
    assert {path.name for path in finished.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}


def test_a_run_needs_no_folder_for_temporary_files(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    assert run(config()).done.exists()


@pytest.mark.parametrize(
    ("broken", "how", "start"),
    [
        *(("last", how, "best.ckpt") for how in ("cut", "empty", "foreign")),
        ("best", "cut", "the start"),
        ("last best", "cut", "the start"),
    ],
)
def test_a_run_whose_checkpoint_cannot_be_read_goes_on_from_the_one_before(
    config, finished, caplog, broken, how, start
):
    expected = probabilities(finished)
    finished.done.unlink()
    for name in broken.split():
        path = finished.checkpoints / f"{name}.ckpt"
        if how == "foreign":
            torch.save({"weights": torch.zeros(3)}, path)
        else:
            os.truncate(path, 0 if how == "empty" else path.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        run(config())
    logged = [line for line in caplog.messages if "cannot be read" in line]
    assert len(logged) == len(broken.split())
    assert all(line.endswith(f"Going on from {start}.") for line in logged)
    np.testing.assert_array_equal(probabilities(finished), expected)
    assert pd.read_csv(finished.history)["epoch"].tolist() == [1, 2]


def test_a_figure_that_does_not_fit_is_no_failure_of_the_run(config, finished, monkeypatch, capsys):
    def full(directory):
        raise OSError(errno.ENOSPC, "No space left on device", "roc.png")

    monkeypatch.setattr("skinlesion.reporting.figures.draw_run_figures", full)
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"mode": "RUN"}))
    importlib.import_module("train").main(config())
    assert "figures are missing: roc.png: No space left on device" in capsys.readouterr().err


def test_two_processes_do_not_write_into_one_run(config, finished):
    finished.done.unlink()
    held = FileLock(finished.path / ".lock")
    with held, pytest.raises(RunLocked, match="another process is training this run"):
        run(config())


# --- refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weights=absent.safetensors", "no such file"),
        ("machine.data=absent", "four ways to get data"),
        ("backbone.cut=blocks.9", "Nearest"),
        ("backbone.cut=flatten", r"need a feature map \(B, C, h, w\)"),
        ("backbone.cut=conv_stem.before_act", "is no batch norm joined with an activation"),
        ("attention.name=soft", "expected one of paper, released, spectral, none"),
        ("attention.maps=0", "the network cannot be built"),
        ("pooling=min", "pooling=min: expected one of max, average"),
        ("preprocess=weights", "preprocess=weights .* weights=none has none"),
        ("data.limit=x", "data.limit=x: expected a"),
        ("loss.divide_by=sum", "divide_by=sum: expected one of batch, weights"),
        ("+optimizer.betas=[0.9,1]", "optimizer: Invalid beta parameter"),
        ("+optimizer.epsilon=1", "optimizer: .*unexpected keyword argument 'epsilon'"),
        ("scheduler.factor=2", "scheduler: Factor should be < 1.0"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_is_loaded(
    config, tmp_path, monkeypatch, override, message
):
    def touched(*_, **__):
        raise AssertionError("images or weights were touched")

    monkeypatch.setattr("skinlesion.data.samples.CheckedArchive.load", touched)
    monkeypatch.setattr("skinlesion.models.backbone.Backbone.load", touched)
    with pytest.raises((SkinlesionError, InstantiationException)) as refusal:
        run(config(override))
    assert refusal.match(message) or pytest.fail(str(refusal.value))
    assert not [*(tmp_path / "runs").rglob("*.*")]


def test_a_split_that_was_drawn_otherwise_cannot_be_resumed(config, finished):
    finished.done.unlink()
    (finished.path / "split.csv").write_text("image_id,lesion_id,dx,split\n")
    with pytest.raises(SkinlesionError, match=r"cannot be resumed\. machine\.force=true"):
        run(config())


def test_a_split_without_the_properties_as_older_releases_wrote_it_is_resumed(config, finished):
    finished.done.unlink()
    path, whole = finished.path / "split.csv", (finished.path / "split.csv").read_text()
    assert whole.splitlines()[0] == "image_id,lesion_id,dx,split,age,sex,localization"
    path.write_text("".join(f"{line.rsplit(',', 3)[0]}\n" for line in whole.splitlines()))
    run(config())
    assert finished.done.exists()
    assert path.read_text() == whole


class PowerCut(BaseException):
    """Unlike KeyboardInterrupt, nothing catches it to tidy up."""


def cut_after(epochs, config):
    """Run, and cut the power in the first step after so many epochs."""
    step = LesionModule.training_step

    def failing(self, batch, batch_idx):
        if self.current_epoch == epochs:
            raise PowerCut
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LesionModule, "training_step", failing)
        with pytest.raises(PowerCut):
            run(config)
