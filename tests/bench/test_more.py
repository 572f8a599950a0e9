"""Attention, growth, latency, limits and fixed costs are measured of the right things."""

from pathlib import Path

import numpy as np
import pytest
import torch

from skinlesion.bench import attention, fixed, growth, latency, limits
from skinlesion.bench.limits import kind
from skinlesion.bench.setting import Setting
from skinlesion.bench.work import Peaks
from skinlesion.data.ham10000 import CLASSES
from skinlesion.reporting.tables import Results, build_table
from skinlesion.sweeps.jobs import read_sweep

SMALL = "mobilenet_v3_small"
BATCH = 4


@pytest.fixture(scope="module")
def small(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The tiny archive at 64 pixels, on the CPU."""
    return Setting(
        (
            *("machine.device=cpu", "backbone.input_size=64", "split=lesion"),
            *(f"machine.data={archive}", f"machine.cache={tmp_path_factory.mktemp('cache')}"),
        ),
        batch=BATCH,
    )


def test_ops_of_the_profiler_have_a_kind() -> None:
    kinds = {
        "aten::mkldnn_convolution": "convolution",
        "aten::convolution_backward": "convolution",
        "aten::native_batch_norm_backward": "batch_norm",
        "aten::relu_": "elementwise",
        "aten::hardswish_backward": "elementwise",
        "aten::copy_": "elementwise",
        "aten::mm": "rest",
        "aten::_fused_adam_": "rest",
        "Optimizer.step#Adam.step": "rest",
    }
    assert {name: kind(name) for name in kinds} == kinds


def test_limits_of_the_device_are_measured_and_those_of_cards_predicted(small, monkeypatch) -> None:
    monkeypatch.setattr(limits, "measure_peaks", lambda *_: Peaks(1e9, 1e9, 1e-6))
    here, *cards = limits.run(small, SMALL)
    assert here["step"] > 0
    assert sum(here[name] for name in limits.KINDS) == pytest.approx(1)
    assert here["arithmetic_ms"] == pytest.approx(here["training"] * BATCH * 1e3)
    assert [card["device"] for card in cards] == ["H100 SXM (predicted)", "H200 (predicted)"]
    assert all("step" not in card for card in cards)
    for row in (here, *cards):
        bounds = {name: row[f"{name}_ms"] for name in ("arithmetic", "memory", "launches")}
        assert row["at_least"] == bounds[row["limit"]] == max(bounds.values())
        assert set(row) <= set(limits.MEASUREMENT.columns)


def test_peaks_are_of_the_device() -> None:
    peaks = limits.measure_peaks(torch.device("cpu"), torch.float32)
    assert min(peaks.flop, peaks.bytes, peaks.launch) > 0


def test_attention_is_timed_with_and_without(small, monkeypatch) -> None:
    monkeypatch.setattr(attention, "SECONDS", 1)
    (row,) = attention.run(small, SMALL)
    assert min(row["paper"], row["none"], row["head"]) > 0
    assert row["map"] == "2 x 2 x 576"
    assert row["spread"][0] <= row["ratio"] <= row["spread"][1]
    assert set(row) == set(attention.MEASUREMENT.columns)


def test_the_head_is_what_follows_the_backbone(small) -> None:
    step = small.steps(small.job(SMALL))
    network = step.module.network.eval()
    image, metadata = step.batch["image"], step.batch["metadata"]
    head = attention.head_of(network)
    with torch.no_grad():
        assert torch.equal(head(network.backbone(image), metadata), network(image, metadata))
    network.train()
    head_step, _ = attention.head_step(step)
    head_step()
    given = {name for name, weight in network.named_parameters() if weight.grad is not None}
    assert given == {n for n, _ in network.named_parameters() if not n.startswith("backbone.")}


def test_repeated_images_are_others_of_other_lesions_in_the_one_cache(small) -> None:
    config = small.job(SMALL)
    samples = small.samples(config)
    grown = growth.prepare(*growth.repeat(samples, 3), samples, config)
    n = len(samples.frame)
    assert len(grown.frame) == len(grown.rows) == grown.frame["image_id"].nunique() == 3 * n
    assert grown.frame["lesion_id"].nunique() == 3 * samples.frame["lesion_id"].nunique()
    assert (grown.frame.groupby("lesion_id")["split"].nunique() == 1).all()
    assert set(grown.frame["split"]) == {"train", "val", "test"}
    assert grown.images is samples.images
    where = dict(zip(samples.frame["image_id"], samples.rows, strict=True))
    originals = grown.frame["image_id"].str.rsplit("-", n=1).str[0]
    assert grown.rows.tolist() == [where[name] for name in originals]


def test_a_size_is_measured_whole(small, monkeypatch) -> None:
    monkeypatch.setattr(growth, "SECONDS", 0.1)
    monkeypatch.setattr(growth, "STEPS", 3)
    config = small.job(SMALL, "scheduler=none", "data.resident=false")
    samples = small.samples(config)
    rounds = [{times: growth.measure_size(config, samples, times) for times in (1, 2)}]
    one, two = (growth._row(times, rounds) for times in (1, 2))
    assert two["images"] == 2 * one["images"] == 2 * len(samples.frame)
    assert (one["beyond"], one["loader_ratio"], one["training_ratio"]) == (0, 1, 1)
    assert two["loader_ratio"] == two["loader"] / one["loader"]
    assert set(two) == set(growth.MEASUREMENT.columns)


def test_inference_is_from_host_to_host(small, monkeypatch) -> None:
    monkeypatch.setattr(latency, "BATCH", 8)
    calls: list[int] = []

    def spy(network, compute, device):
        predict = latency_predictor(network, compute, device)

        def watched(batch):
            probabilities = predict(batch)
            assert batch["image"].device == probabilities.device == torch.device("cpu")
            assert probabilities.sum(dim=1).numpy() == pytest.approx(np.ones(len(probabilities)))
            calls.append(len(probabilities))
            return probabilities

        return watched

    latency_predictor = latency.predictor
    monkeypatch.setattr(latency, "predictor", spy)
    rows = latency.run(small, SMALL)
    assert rows[0]["precision"] == "32-true"
    assert rows[0]["median"] <= rows[0]["p95"]
    assert set(calls) == {1, 8}
    assert all(set(row) == set(latency.MEASUREMENT.columns) for row in rows)


@pytest.mark.parametrize(
    ("backbone", "seconds"), [("mobilenet_v3_large", "116"), ("densenet201", "1000")]
)
def test_table_11_is_printed_beside_its_backbone(backbone, seconds) -> None:
    found = latency.printed(backbone)
    assert found["table11"] == seconds
    assert "not of prediction" in found["source"]


def test_what_table_11_leaves_out_has_no_cell() -> None:
    assert latency.printed("resnet50") == {"table11": None, "source": None}


def test_the_stages_of_a_run_are_watched(small, tmp_path) -> None:
    config = small.job(SMALL)
    small.samples(config)
    words = [*small.overrides, f"backbone={SMALL}", f"batch_size={BATCH}", *fixed.ONE_STEP]
    stages = fixed._child([*words, f"machine.runs={tmp_path}"])
    assert len([*tmp_path.glob("*/*/*/DONE")]) == 1
    never = {"taking its weights"}  # there are none to take
    assert all(seconds > 0.001 for name, seconds in stages.items() if name not in never), stages


def test_made_up_runs_fill_the_tables(tmp_path) -> None:
    assert fixed.make_runs(tmp_path, ["table8"], images=70) == 12
    sweep = read_sweep("table8", [f"machine.runs={tmp_path}"])
    results = Results([sweep])
    rows = build_table(sweep, results).rows
    assert not results.damaged
    assert all(len(row.runs) == 3 and not row.missing for row in rows)
    assert rows[0].runs[0].part.classes == CLASSES
