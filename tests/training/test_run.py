import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import decode
from skinlesion.data.encoding import MetadataEncoder
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError
from skinlesion.runs.predictions import read_predictions
from skinlesion.models.build import build_classifier
from skinlesion.training.run import run
from skinlesion.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
Config = Callable[..., DictConfig]


def probabilities(directory: RunDirectory) -> np.ndarray:
    return read_predictions(directory.predictions).probabilities


def test_a_run_leaves_a_complete_directory(config: Config) -> None:
    directory = run(config())
    files = {str(p.relative_to(directory.path)) for p in directory.path.rglob("*") if p.is_file()}
    assert files == {
        *("config.yaml", "split.csv", "predictions.csv", "metrics.json", "history.csv"),
        *("provenance.json", "DONE", ".lock", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    }
    assert directory.path.parts[-3] == "mobilenet_v3_small"
    assert directory.path.name == "seed0"
    metrics = json.loads((directory.path / "metrics.json").read_text())
    assert metrics["protocol"] == "paper"
    assert list(metrics["parts"]) == ["val"]
    split = pd.read_csv(directory.path / "split.csv")
    assert metrics["parts"]["val"]["n"] == (split["split"] == "val").sum()
    made_with = json.loads((directory.path / "provenance.json").read_text())
    assert {"commit", "dirty", "packages", "cpu", "data", "weights", "seconds_per_epoch"} <= set(
        made_with
    )
    assert made_with["epochs"] == 2
    assert "${" not in (directory.path / "config.yaml").read_text()


def test_the_lesion_protocol_reports_a_test_part_that_leaks_nothing(config: Config) -> None:
    directory = run(config("split=lesion", "trainer.max_epochs=1"))
    metrics = json.loads((directory.path / "metrics.json").read_text())
    assert list(metrics["parts"]) == ["val", "test"]
    assert {part: leak["leaked"] for part, leak in metrics["leak"].items()} == {"val": 0, "test": 0}
    assert set(read_predictions(directory.predictions).splits) == {"val", "test"}


def test_a_checkpoint_predicts_without_training_data_or_weights_file(
    config: Config, archive: Path
) -> None:
    directory = run(config())
    checkpoint = torch.load(directory.best, weights_only=True)
    description = checkpoint["hyper_parameters"]
    assert description["classes"] == list(CLASSES)
    network = build_classifier(**description["network"]).eval()
    state = checkpoint["state_dict"]
    network.load_state_dict(
        {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    )
    encoder = MetadataEncoder.from_dict(description["encoder"])

    images = ImageArchive(archive)
    table, _ = read_table(images, Schema.from_config(config().data))
    predicted = read_predictions(directory.predictions)
    row = predicted.frame.iloc[0]
    metadata = encoder.encode(table[table["image_id"] == row["image_id"]])
    image = decode(images.read(row["image_id"]), network.backbone.spec.input_size)
    with torch.no_grad():
        logits = network(torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(metadata))
    np.testing.assert_allclose(logits.softmax(1)[0], predicted.probabilities[0], atol=1e-5)


def test_the_same_command_again_says_that_it_is_done(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    first = run(config("trainer.max_epochs=1"))
    before = first.last.stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        again = run(config("trainer.max_epochs=1"))
    assert again.path == first.path
    assert again.last.stat().st_mtime_ns == before
    assert "is done; machine.force=true" in caplog.text
    assert run(config("trainer.max_epochs=1", "machine.force=true")).last.stat().st_mtime_ns > before


def test_seed_and_machine_are_no_part_of_a_runs_key_but_everything_else_is(
    config: Config, archive: Path, tmp_path: Path
) -> None:
    def key(*overrides: str) -> str:
        return run(config("debug=fast", *overrides)).path.parent.name

    elsewhere = shutil.copytree(archive, tmp_path / "copy")
    same = key()
    assert key("seed=1") == same
    assert key(f"machine.data={elsewhere}", "machine.workers=1", "machine.force=true") == same
    others = [key("optimizer.lr=0.01"), key("split=lesion"), key("data.limit=40")]
    assert len({same, *others}) == 4


def test_other_pixels_under_the_same_names_are_another_run(
    config: Config, archive: Path, tmp_path: Path
) -> None:
    from skinlesion.data.demo import write_demo

    other = write_demo(tmp_path / "other", images=80, size=(100, 75), progress=False)
    assert (
        run(config("debug=fast")).path.parent.name
        != run(config("debug=fast", f"machine.data={other}")).path.parent.name
    )


def test_a_resumed_run_equals_an_uninterrupted_one(config: Config, tmp_path: Path) -> None:
    # A scheduler that reduces after every epoch shows whether its step is lost on resuming.
    overrides = ("augment=datta", "machine.workers=0", "scheduler.patience=0", "scheduler.threshold=9")
    whole = run(config(*overrides, "trainer.max_epochs=3"))
    # The same run, cut after its second epoch.
    cut = config(*overrides, "trainer.max_epochs=3", f"machine.runs={tmp_path / 'cut'}")
    directory = RunDirectory(tmp_path / "cut" / Path(*whole.path.parts[-3:]))
    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(PowerCut):
            run(cut)
    assert len(pd.read_csv(directory.history)) == 2
    assert not directory.done.exists()
    assert run(cut).path == directory.path

    resumed, expected = pd.read_csv(directory.history), pd.read_csv(whole.history)
    assert resumed["epoch"].tolist() == [1, 2, 3]
    assert expected["lr"].tolist() == pytest.approx([1e-3, 1e-3, 2e-4])
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), expected.drop(columns="seconds"))
    np.testing.assert_array_equal(probabilities(directory), probabilities(whole))


def test_a_killed_run_goes_on_without_a_hole_or_a_repeat(
    tiny: list[str], config: Config, tmp_path: Path
) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *tiny, "trainer.max_epochs=5"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not (found := list(tmp_path.glob("runs/*/*/*/history.csv"))) or (
            found[0].read_text().count("\n") < 3
        ):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    directory = RunDirectory(found[0].parent)
    assert not directory.done.exists()
    assert run(config("trainer.max_epochs=5")).path == directory.path
    assert pd.read_csv(directory.history)["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert directory.done.exists()


def test_a_run_cut_after_training_only_predicts(config: Config) -> None:
    directory = run(config())
    before, weights = directory.history.read_text(), directory.last.stat().st_mtime_ns
    for name in ("DONE", "predictions.csv", "metrics.json"):
        (directory.path / name).unlink()
    run(config())
    assert directory.predictions.exists()
    assert (directory.history.read_text(), directory.last.stat().st_mtime_ns) == (before, weights)


def test_a_run_that_had_stopped_early_is_trained_no_further(config: Config) -> None:
    early = (
        "trainer.max_epochs=50",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=100",
    )
    directory = run(config(*early))
    before = directory.history.read_text()
    assert before.count("\n") == 1 + 2
    directory.done.unlink()
    run(config(*early))
    assert directory.history.read_text() == before


def test_a_moved_run_keeps_its_best_epoch(config: Config, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(PowerCut):
            run(config("trainer.max_epochs=3"))
    shutil.move(tmp_path / "runs", tmp_path / "moved")
    directory = run(config("trainer.max_epochs=3", f"machine.runs={tmp_path / 'moved'}"))
    state = torch.load(directory.last, weights_only=True)["callbacks"]
    best = next(s for name, s in state.items() if "val_accuracy" in name)
    history = pd.read_csv(directory.history)
    assert float(best["best_model_score"]) == pytest.approx(history["val_accuracy"].max())
    assert Path(best["best_model_path"]) == directory.best.resolve()


def test_two_processes_do_not_write_into_one_run(config: Config) -> None:
    directory = run(config("debug=fast"))
    directory.done.unlink()
    with (
        FileLock(directory.path / ".lock"),
        pytest.raises(SkinlesionError, match="another process is training this run"),
    ):
        run(config("debug=fast"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("weights=absent.safetensors", "no such file"),
        ("backbone.cut=blocks.9", "Nearest"),
        ("machine.data=absent", "four ways to get data"),
        ("batch_size=0", "batch_size=0: expected a whole number from 1"),
        ("seed=x", "seed=x: expected a whole number"),
        ("trainer.limit_val_batches=0", "expected more, because validation selects the checkpoint"),
        ("attention.name=soft", "expected one of paper, released, none"),
        ("split.folds=1", "at least 2 folds"),
        ("split.folds=x", "split.folds=x.*at least 2 folds"),
        ("split.val_fraction=x", "split.val_fraction=x.*expected a validation share"),
        ("split.seed=-1", "split.seed=-1: expected a whole number from 0"),
        ("+split.weight=1", "unexpected keyword argument 'weight'"),
        ("data.limit=x", "data.limit=x: expected a positive number of images"),
        ("optimizer.eps=0", "eps=0: expected a number above 0, because Adam divides by it"),
        ("optimizer.eps=-0.1", "optimizer.eps=-0.1: expected a number above 0"),
        ("optimizer.eps=small", "optimizer.eps=small: expected a number above 0"),
        ("+optimizer.betas=[0.9,1]", "optimizer: Invalid beta parameter"),
        ("+optimizer.epsilon=1", "optimizer: .*unexpected keyword argument 'epsilon'"),
        ("scheduler.factor=2", "scheduler: Factor should be < 1.0"),
        ("preprocess=weights", "preprocess=weights .* weights=none has none"),
        ("backbone.cut=flatten", r"need a feature map \(B, C, h, w\)"),
        ("backbone.cut=conv_stem.before_act", "is no batch norm joined with an activation"),
        ("missing_metadata=drop", "missing_metadata=drop: expected one of category, zero"),
        ("batch_norm=tf", "batch_norm=tf: expected one of timm, keras"),
        ("backbone.keras_momentum=0", "keras_momentum: expected a number above 0, at most 1, or"),
        ("initialiser=he", "initialiser=he: expected one of keras, torch"),
        ("pooling=min", "pooling=min: expected one of max, average"),
        ("machine.workers=-1", "machine.workers=-1: expected a whole number from 0"),
    ],
)
def test_wrong_input_is_one_error_and_leaves_no_run(
    config: Config, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(SkinlesionError, match=message):
        run(config(override))
    written = [p for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.name != ".lock"]
    assert written == []


def test_metadata_and_attention_can_be_left_out(config: Config) -> None:
    directory = run(config("attention=none", "metadata=none", "debug=fast"))
    saved = OmegaConf.load(directory.path / "config.yaml")
    assert (saved.attention.name, saved.metadata.name) == ("none", "none")
    state = torch.load(directory.best, weights_only=True)["state_dict"]
    assert not [name for name in state if "attention" in name or "metadata" in name]


@pytest.mark.parametrize(
    "override",
    [
        "optimizer.eps=0",
        "preprocess=weights",
        "backbone.cut=flatten",
        "loss.divide_by=sum",
        "attention.maps=0",
        "weights=imagenet backbone=nasnet_mobile",
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    config: Config, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("data or weights were touched")

    monkeypatch.setattr("skinlesion.training.build.check", touched)
    monkeypatch.setattr("skinlesion.models.backbone.Backbone.load", touched)
    with pytest.raises((SkinlesionError, InstantiationException)) as refusal:
        run(config(*override.split()))
    assert len(str(refusal.value.__cause__ or refusal.value).splitlines()) == 1


class PowerCut(BaseException):
    """Unlike KeyboardInterrupt, nothing catches it to tidy up."""


def stop_after(epochs: int, patch: pytest.MonkeyPatch) -> None:
    """Cut the power in the first step after so many epochs."""
    from skinlesion.training.module import LesionModule

    step = LesionModule.training_step

    def failing(self: LesionModule, batch: dict, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == epochs:
            raise PowerCut
        return step(self, batch, batch_idx)

    patch.setattr(LesionModule, "training_step", failing)
