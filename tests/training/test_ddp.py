"""One run by two processes: the same batches, the same weights, each held-out image once."""

import json
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch.multiprocessing import ProcessRaisedException

from skinlesion.data.archive import ImageArchive
from skinlesion.data.cache import decode
from skinlesion.data.encoding import MetadataEncoder
from skinlesion.data.ham10000 import CLASSES
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.predictions import read_predictions
from skinlesion.models.build import build_classifier
from skinlesion.training.build import build_network
from skinlesion.training.compute import resolve
from skinlesion.training.module import LesionModule
from skinlesion.training.run import run
from skinlesion.training.rundir import RunDirectory

Config = Callable[..., DictConfig]

TWO = ("trainer=ddp", "trainer.devices=2")
# One of timm's own test networks, without batch norm, so that a sample does not see its batch.
NO_BATCH_NORM = (
    *("backbone.timm_model=test_convnext", "backbone.cut=norm_pre", "backbone.pretrained=null"),
    "dropout=0",
)


@pytest.fixture
def ctrl_c_as_before() -> Iterator[None]:
    """Lightning ignores Ctrl-C once it has answered one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def saved(directory: RunDirectory, name: str = "best") -> dict:
    return torch.load(directory.checkpoints / f"{name}.ckpt", weights_only=True)


def network_of(checkpoint: dict) -> torch.nn.Module:
    network = build_classifier(**checkpoint["hyper_parameters"]["network"]).eval()
    state = checkpoint["state_dict"].items()
    network.load_state_dict({k[8:]: v for k, v in state if k.startswith("network.")})
    return network


def test_two_processes_train_to_the_weights_of_one(config: Config) -> None:
    # 5 batches of 12 and one of 4; 9 validation images, 5 for one process and 4 for the other.
    overrides = (*NO_BATCH_NORM, "batch_size=12", "scheduler.patience=0", "scheduler.threshold=9")
    two, one = run(config(*overrides, *TWO)), run(config(*overrides))
    split = pd.read_csv(two.path / "split.csv")["split"].value_counts()
    assert (split["train"] % 12, split["val"]) == (4, 9)

    histories = [pd.read_csv(d.history).drop(columns="seconds") for d in (two, one)]
    pd.testing.assert_frame_equal(*histories, rtol=1e-4)
    weights = [saved(d, "last")["state_dict"] for d in (two, one)]
    wanted = config(*overrides)
    start = build_network(wanted, resolve(wanted)).state_dict()
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-3, atol=2e-5)
    moved = max((weights[1][f"network.{n}"] - v).abs().max() for n, v in start.items())
    assert moved > 1e-3  # fifty times what is allowed to differ
    found, expected = (read_predictions(d.predictions) for d in (two, one))
    assert found.frame["image_id"].tolist() == expected.frame["image_id"].tolist()
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)


@pytest.mark.usefixtures("ctrl_c_as_before")
def test_a_run_of_two_processes_is_whole_and_after_ctrl_c_goes_on_exactly(
    config: Config, archive: Path, tmp_path: Path
) -> None:
    overrides = (
        *("trainer.max_epochs=3", "split=lesion", "scheduler.patience=0", "scheduler.threshold=9"),
        *("augment=datta", "data.workers=0", *TWO),
    )
    whole = run(config(*overrides))
    files = {str(p.relative_to(whole.path)) for p in whole.path.rglob("*") if p.is_file()}
    assert {"DONE", "metrics.json", "history.csv"} <= files
    assert not [name for name in files if name.endswith(".tmp")]
    assert json.loads((whole.path / "provenance.json").read_text())["epochs"] == 3

    # Every held-out image once, with the probabilities that best.ckpt gives it in this process.
    predicted = read_predictions(whole.predictions)
    split = pd.read_csv(whole.path / "split.csv")
    held_out = split.loc[split["split"] != "train", "image_id"]
    assert sorted(predicted.frame["image_id"]) == sorted(held_out)
    best = saved(whole)
    network, images = network_of(best), ImageArchive(archive)
    table = read_table(images, Schema.from_config(config().data))[0].set_index(
        "image_id", drop=False
    )
    encoder = MetadataEncoder.from_dict(best["hyper_parameters"]["encoder"])
    rows = predicted.frame["image_id"].tolist()
    pixels = torch.stack(
        [torch.from_numpy(decode(images.read(i), network.backbone.spec.input_size)) for i in rows]
    ).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = network(pixels, torch.from_numpy(encoder.encode(table.loc[rows])))
    np.testing.assert_allclose(logits.softmax(1), predicted.probabilities, atol=1e-5)

    # What the two measured of the validation images, shared unevenly, is what this one finds.
    part = torch.tensor((predicted.frame["split"] == "val").tolist())
    assert part.sum() % 2 == 1
    label = torch.tensor([CLASSES.index(name) for name in predicted.frame["label"]])[part]
    epoch = pd.read_csv(whole.history).iloc[best["epoch"]]
    assert epoch["val_loss"] == pytest.approx(float(F.cross_entropy(logits[part], label)), rel=1e-4)
    right = logits[part].argmax(1) == label
    assert epoch["val_accuracy"] == pytest.approx(float(right.float().mean()))
    recall = [float(right[label == c].float().mean()) for c in label.unique()]
    assert epoch["val_balanced_accuracy"] == pytest.approx(np.mean(recall))

    # The same, stopped once it has a first epoch.
    runs = tmp_path / "stopped"
    directory = RunDirectory(runs / Path(*whole.path.parts[-3:]))
    stopped = config(*overrides, f"runs={runs}")
    threading.Thread(target=interrupt_after_an_epoch, args=[directory.history], daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(stopped)
    assert not multiprocessing.active_children()
    assert not directory.done.exists()
    assert len(pd.read_csv(directory.history)) in (1, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert run(stopped).path == directory.path
    resumed, expected = pd.read_csv(directory.history), pd.read_csv(whole.history)
    assert expected["lr"].tolist() == pytest.approx([1e-3, 1e-3, 2e-4])
    pd.testing.assert_frame_equal(resumed.drop(columns="seconds"), expected.drop(columns="seconds"))
    again = read_predictions(directory.predictions)
    np.testing.assert_array_equal(again.probabilities, predicted.probabilities)


def interrupt_after_an_epoch(history: Path) -> None:
    """Send this process alone what Ctrl-C would."""
    while not history.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*TWO, "batch_size=31"), "batch_size=31: the devices .* expected a multiple of 2"),
        (("trainer.devices=2",), "trainer.devices=2: several need trainer=ddp"),
        ((*TWO, "loss.divide_by=weights"), "loss.divide_by=weights: .* or one device"),
    ],
)
def test_what_devices_cannot_share_is_one_error_before_any_work(
    config: Config, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SkinlesionError, match=message):
        run(config(*overrides))
    written = [p for p in (tmp_path / "runs").rglob("*") if p.is_file() and p.name != ".lock"]
    assert written == []


def test_wrong_input_met_in_a_spawned_process_is_wrong_input_here(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*_: object, **__: object) -> None:
        raise ProcessRaisedException(trace, 1, 0)

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    trace = "\n\n-- Process 1 terminated with the following error:\nTraceback"
    with pytest.raises(ProcessRaisedException, match="Process 1 terminated"):
        run(config())
    trace += " ...\nskinlesion.errors.SkinlesionError: a thing is wrong:\n  - this\n"
    with pytest.raises(SkinlesionError) as error:
        run(config())
    assert str(error.value) == "a thing is wrong:\n  - this"


def test_a_module_travels_without_its_graph(config: Config) -> None:
    wanted = config("backbone=nasnet_mobile", "batch_norm=keras", "backbone.input_size=64")
    rebuild = partial(build_network, wanted, resolve(wanted))
    module = LesionModule(
        rebuild(), torch.nn.CrossEntropyLoss(), torch.optim.SGD, None, 7, 0, {"classes": 7}
    )
    with pytest.raises(RecursionError):
        pickle.dumps(module.network)
    module.rebuild = rebuild
    sent = pickle.dumps(module)
    parameters = sum(p.nbytes for p in module.parameters())
    assert len(sent) < 1.2 * parameters
    received = pickle.loads(sent)
    assert list(received.state_dict()) == list(module.state_dict())
    momenta = [
        [m.momentum for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        for network in (received.network, module.network)
    ]
    assert momenta[0] == momenta[1]
    image, metadata = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8), torch.rand(2, 21)
    for mode in (True, False):
        outputs = []
        for network in (received.network, module.network):
            torch.manual_seed(0)
            outputs.append(network.train(mode)(image, metadata))
        assert torch.equal(*outputs)


@pytest.fixture
def joined(config: Config) -> Callable[..., LesionModule]:
    """A module as one of several processes has it."""

    def make(device: str, world: int, rank: int = 0) -> LesionModule:
        torch.manual_seed(0)
        wanted = config()
        network = build_network(wanted, resolve(wanted))
        module = LesionModule(network, torch.nn.CrossEntropyLoss(), torch.optim.SGD, None, 7, 5, {})
        strategy = SimpleNamespace(root_device=torch.device(device))
        module._trainer = SimpleNamespace(
            world_size=world, global_rank=rank, current_epoch=2, strategy=strategy
        )
        return module

    return make


def test_batch_norms_are_joined_over_gpus_and_keep_their_activations(
    joined: Callable[..., LesionModule],
) -> None:
    image, metadata = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8), torch.rand(2, 21)

    def norms(module: LesionModule) -> set[bool]:
        kinds = torch.nn.modules.batchnorm._BatchNorm
        found = [m for m in module.network.modules() if isinstance(m, kinds)]
        return {isinstance(m, torch.nn.SyncBatchNorm) for m in found}

    module = joined("cuda", world=2)
    names = list(module.state_dict())
    expected = module.network.eval()(image, metadata)
    module.configure_model()
    assert norms(module) == {True}
    assert list(module.state_dict()) == names
    assert torch.equal(module.network(image, metadata), expected)
    for alone in (joined("cuda", world=1), joined("cpu", world=2)):
        alone.configure_model()
        assert norms(alone) == {False}


def test_processes_draw_different_dropout_and_one_alone_draws_as_ever(
    joined: Callable[..., LesionModule],
) -> None:
    drawn = []
    for world, rank in [(1, 0), (2, 0), (2, 1)]:
        joined("cpu", world, rank).on_train_batch_start({}, 0)
        drawn.append(torch.initial_seed())
    assert len(set(drawn)) == 3
    assert drawn[0] == 5 * 1_000_003 + 2
