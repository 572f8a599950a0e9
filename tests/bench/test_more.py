"""Attention, growth, latency, limits and fixed costs are measured of the right things."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from skinlesion.bench import attention, fixed, growth, latency, limits
from skinlesion.bench.limits import Peaks, Traffic, Work, count, counter, kind
from skinlesion.bench.setting import Setting
from skinlesion.data.ham10000 import CLASSES
from skinlesion.reporting.tables import Results, build_table
from skinlesion.sweeps.jobs import read_sweep
from skinlesion.training.compute import resolve

SMALL = "mobilenet_v3_small"
BATCH = 4


@pytest.fixture(scope="module")
def small(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The tiny archive at 64 pixels, on the CPU."""
    return Setting(
        (
            *("trainer.accelerator=cpu", "backbone.input_size=64", "split=lesion"),
            *(f"data.root={archive}", f"data.cache={tmp_path_factory.mktemp('cache')}"),
        ),
        batch=BATCH,
    )


def traffic_of(function) -> tuple[int, int]:
    with Traffic() as traffic:
        function()
    return traffic.bytes, traffic.launches


def test_the_flop_of_a_convolution_are_two_for_each_weight_and_output() -> None:
    image = torch.zeros(2, 6, 8, 8)
    with counter() as flop:
        nn.Conv2d(6, 10, kernel_size=3, padding=1)(image)
    assert flop.get_total_flops() == 2 * (2 * 10 * 8 * 8) * (6 * 3 * 3)


@pytest.mark.parametrize(("groups", "weights"), [(1, 6 * 3 * 3), (2, 3 * 3 * 3), (6, 3 * 3)])
def test_each_gradient_of_a_convolution_costs_as_much_as_the_convolution(groups, weights) -> None:
    image = torch.zeros(2, 6, 8, 8, requires_grad=True)
    conv = nn.Conv2d(6, 12, kernel_size=3, padding=1, groups=groups)
    with counter() as flop:
        conv(image).sum().backward()
    assert flop.get_total_flops() == 3 * 2 * (2 * 12 * 8 * 8) * weights


def test_an_image_needs_no_gradient() -> None:
    with counter() as flop:
        nn.Conv2d(6, 10, kernel_size=3)(torch.zeros(2, 6, 8, 8)).sum().backward()
    assert flop.get_total_flops() == 2 * 2 * (2 * 10 * 6 * 6) * (6 * 3 * 3)


def test_an_op_reads_its_inputs_and_writes_its_outputs() -> None:
    a, b = torch.zeros(4, 5), torch.zeros(4, 5)
    assert traffic_of(lambda: a + b) == (3 * 80, 1)
    assert traffic_of(lambda: a.add_(b)) == (3 * 80, 1)
    assert traffic_of(lambda: a.copy_(b)) == (2 * 80, 1)
    assert traffic_of(lambda: a.zero_()) == (80, 1)
    assert traffic_of(lambda: a.sum()) == (80 + 4, 1)
    assert traffic_of(lambda: a.bfloat16()) == (80 + 40, 1)


def test_a_view_moves_nothing_and_an_expanded_dimension_is_read_once() -> None:
    row = torch.zeros(1, 5)
    assert traffic_of(lambda: row.view(5).t()) == (0, 0)
    assert traffic_of(lambda: torch.empty(4, 5)) == (0, 0)
    assert traffic_of(lambda: row.expand(4, 5) + 1) == (20 + 80, 1)


def test_a_step_counted_on_shapes_is_the_step_that_is_taken(small) -> None:
    config = small.job(SMALL)
    compute, samples = resolve(config), small.samples(config)
    step = small.steps(config)
    step()
    with counter() as flop, Traffic() as traffic:
        step()
    counted = count(config, samples, compute, BATCH)
    assert counted.flop == flop.get_total_flops()
    assert counted.bytes == pytest.approx(traffic.bytes, rel=0.02)
    assert counted.launches == pytest.approx(traffic.launches, rel=0.1)
    assert counted.flop == pytest.approx(3 * counted.forward_flop, rel=0.1)


def test_bfloat16_moves_fewer_bytes_for_the_same_flop(small) -> None:
    work = {}
    for precision in ("32-true", "bf16-mixed"):
        config = small.job(SMALL, f"compute.precision={precision}")
        work[precision] = count(config, small.samples(config), resolve(config), 64)
    assert work["bf16-mixed"].flop == work["32-true"].flop
    assert work["bf16-mixed"].bytes < 0.8 * work["32-true"].bytes


def test_the_largest_bound_limits() -> None:
    work = Work(forward_flop=1, flop=100, bytes=50, launches=3)
    bounds = work.bounds(Peaks(flop=10, bytes=10, launch=2))
    assert bounds == {"arithmetic": 10, "memory": 5, "launches": 6}


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
    stages = fixed._child([*words, f"runs={tmp_path}"])
    assert len([*tmp_path.glob("*/*/*/DONE")]) == 1
    never = {"taking its weights"}  # there are none to take
    assert all(seconds > 0.001 for name, seconds in stages.items() if name not in never), stages


def test_made_up_runs_fill_the_tables(tmp_path) -> None:
    assert fixed.make_runs(tmp_path, ["table8"], images=70) == 12
    sweep = read_sweep("table8", [f"runs={tmp_path}"])
    results = Results([sweep])
    rows = build_table(sweep, results).rows
    assert not results.damaged
    assert all(len(row.runs) == 3 and not row.missing for row in rows)
    assert rows[0].runs[0].part.classes == CLASSES
