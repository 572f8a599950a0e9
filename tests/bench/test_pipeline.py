from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from skinlesion.bench import epochs, ordinary, pipeline, switches
from skinlesion.bench.ordinary import FloatBackbone, Jpegs, images_per_second, ordinary_transform
from skinlesion.bench.results import Measurement
from skinlesion.bench.setting import Setting
from skinlesion.errors import SkinlesionError
from skinlesion.training.compute import resolve

BACKBONE = "mobilenet_v3_small"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """As short as measuring can be."""
    for module in (pipeline, ordinary, switches):
        monkeypatch.setattr(module, "SECONDS", 0)
        monkeypatch.setattr(module, "ROUNDS", 1)
        monkeypatch.setattr(module, "LEAST_STEPS", 1)
    monkeypatch.setattr(epochs, "SECONDS", 0)
    monkeypatch.setattr(epochs, "LEAST_STEPS", 1)


def has_its_columns(measurement: Measurement, rows: list[dict[str, Any]]) -> None:
    assert rows
    for row in rows:
        assert row.keys() <= measurement.columns.keys()
        assert "problem" not in row


def test_training_is_timed_from_the_third_batch_to_the_last(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = setting.job(BACKBONE, "scheduler=none")
    training = pipeline.Training(config, setting.samples(config))
    step, clock, seen = training.module.training_step, {"now": 0.0}, []
    monkeypatch.setattr(pipeline, "now", lambda: clock["now"])

    def slow_at_first(batch: Any, batch_idx: int) -> torch.Tensor:
        seen.append(batch_idx)
        clock["now"] += 10 if batch_idx < 2 else batch_idx
        return step(batch, batch_idx)

    monkeypatch.setattr(training.module, "training_step", slow_at_first)
    assert training.warm_up == 2
    assert training.seconds_per_step(3) == (2 + 3 + 4) / 3
    assert seen == [0, 1, 2, 3, 4]


def test_what_workers_fetch_ahead_is_not_timed(setting: Setting) -> None:
    config = setting.job(BACKBONE, "augment=datta", "machine.workers=1", "batch_size=4")
    samples = setting.samples(config)
    training = pipeline.Training(config, samples)
    trained = (samples.frame["split"] == "train").sum()
    assert training.warm_up == 4
    assert training.most == trained // 4 - 4 - 2


def test_too_few_images_are_refused(setting: Setting) -> None:
    config = setting.job(BACKBONE, "batch_size=64")
    with pytest.raises(SkinlesionError, match="expected two batches of 64 at least"):
        pipeline.Training(config, setting.samples(config))


def test_the_share_is_the_steps_time_over_trainings(setting: Setting) -> None:
    plain, augmented = rows = pipeline.run(setting, BACKBONE)
    has_its_columns(pipeline.MEASUREMENT, rows)
    assert (plain["augment"], augmented["augment"]) == ("none", "datta")
    assert plain["fetched"] == "main process"
    assert "workers" in augmented["fetched"]
    for row in rows:
        low, high = row["spread"]
        assert 0 < low <= row["share"] <= high
        assert row["batch"] == 8


def test_images_are_counted_in_the_middle_of_each_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr(ordinary, "now", lambda: clock["now"])
    monkeypatch.setattr(ordinary.time, "perf_counter", lambda: clock["now"])

    def step(images: int) -> None:
        clock["now"] += 10 if images == 7 else images / 4  # the first three are slow

    # A pass takes 10 + 10 + 10 + 1 + 2 seconds up to its last batch, which was fetched ahead as one
    # of the first three; three passes are needed for more than 7 of the two timed.
    batches = [7, 7, 7, 4, 8, 100]
    assert images_per_second(batches, int, seconds=7, ahead=1, step=step) == 4
    assert clock["now"] == 3 * 33


@pytest.mark.parametrize("backbone", [BACKBONE, "resnet50"])  # RGB, and blue first
def test_the_ordinary_way_feeds_the_same_numbers(setting: Setting, backbone: str) -> None:
    config = setting.job(backbone, "machine=plain")
    samples = setting.samples(config)
    network: Any = setting.steps(config).module.network.eval()
    first = int(np.flatnonzero(samples.frame["split"] == "train")[0])
    cached = torch.from_numpy(samples.images[samples.rows[[first]]]).permute(0, 3, 1, 2)
    metadata = torch.from_numpy(samples.encoder.encode(samples.frame)[[first]])
    # The cache's own pixels, so that only cropping and resizing, which differ, are left out.
    transform = ordinary_transform(64, network.backbone)
    image = transform(Image.fromarray(cached[0].permute(1, 2, 0).numpy()))
    with torch.no_grad():
        ours = network(cached, metadata)
        network.backbone = FloatBackbone(network.backbone)
        theirs = network(image[None], metadata)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)


def test_the_ordinary_dataset_is_the_training_part(setting: Setting) -> None:
    config = setting.job(BACKBONE)
    samples, root = setting.samples(config), Path(config.data.root)
    width, height = ordinary.jpeg_size(root, samples)
    assert (width, height) == (96, 72)
    transform = ordinary_transform(height, setting.steps(config).module.network.backbone)  # type: ignore[arg-type]
    dataset = Jpegs(root, samples, transform)
    trained = samples.frame["split"] == "train"
    assert len(dataset) == trained.sum()
    loader = DataLoader(dataset, batch_size=16, num_workers=1)
    image, metadata, label = next(iter(loader))
    assert image.shape == (16, 3, 64, 64)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(label, samples.labels[trained][:16])
    np.testing.assert_array_equal(
        metadata, samples.encoder.encode(samples.frame[trained])[:16].astype(np.float32)
    )
    # Of the same photograph as the cache's, though resized by another library.
    cached = samples.images[samples.rows[trained][:16]].transpose(0, 3, 1, 2) / 127.5 - 1
    assert np.abs(image.numpy() - cached).mean() < 0.05


def test_ours_and_the_ordinary_way_are_measured_end_to_end(setting: Setting) -> None:
    rows = ordinary.run(setting, BACKBONE)
    has_its_columns(ordinary.MEASUREMENT, rows)
    assert [row["what"] for row in rows] == ["training, end to end", "loader alone"]
    assert all(min(row["ours"], row["ordinary"], row["ratio"]) > 0 for row in rows)
    assert rows[0]["jpeg"] == "96 x 72"


def test_an_epoch_is_extrapolated_to_all_images_of_the_paper(setting: Setting) -> None:
    (row,) = epochs.run(setting, BACKBONE)
    has_its_columns(epochs.MEASUREMENT, [row])
    validated = (setting.samples(setting.job(BACKBONE)).frame["split"] == "val").sum()
    assert row["from"] == f"extrapolated from 8 + {validated} images an epoch"
    assert row["train"] < row["seconds"]
    assert row["paper"] is None


def test_an_epoch_stands_beside_the_papers(setting: Setting) -> None:
    (row,) = epochs.run(setting, "mobilenet_v3_large")
    # Table 11 prints 116 s for MobileNetV3Large.
    assert (row["paper"], row["row"]) == (116, "table9_240")
    assert row["times"] == 116 / row["seconds"]


def test_each_switch_of_the_device_is_flipped(setting: Setting) -> None:
    compute = resolve(setting.job(BACKBONE))
    assert switches.flips(compute, turnable=False) == [
        ("compute.precision", "bf16-mixed"),
        ("machine.channels_last", "false"),
        ("machine.fused", "false"),
        ("machine.retain_memory", "false"),
        ("machine.compile", "default"),
        ("data.resident", "true"),
    ]
    assert ("machine.rotated", "false") in switches.flips(compute, turnable=True)


def test_a_switch_changes_speed_and_no_result(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = switches.flips
    monkeypatch.setattr(
        switches,
        "flips",
        lambda *about: [flip for flip in every(*about) if flip[0] != "machine.compile"],
    )
    rows = switches.run(setting, BACKBONE)
    has_its_columns(switches.MEASUREMENT, rows)
    precision, *exact, resident = rows
    assert precision["same"] > 0  # bfloat16 rounds, or nothing was flipped
    for row in exact:
        assert row.get("same", 0) < 1e-5
        assert row["trained"] < 1e-3
    assert resident["switch"].startswith("data.resident=true")


def test_a_switch_that_cannot_be_flipped_leaves_the_others(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*arguments: Any) -> dict[str, Any]:
        raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nmore")

    monkeypatch.setattr(
        switches,
        "flips",
        lambda *_: [("machine.compile", "default"), ("data.resident", "true")],
    )
    monkeypatch.setattr(switches, "_step", no_compiler)
    compiled, resident = switches.run(setting, BACKBONE)
    assert compiled["problem"] == "InvalidCxxCompiler: no working C++ compiler"
    assert resident["ratio"] > 0
