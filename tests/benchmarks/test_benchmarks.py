"""Benchmarks compare side by side, count what can be counted, and keep what they measured."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import attention, limits, pipeline, results, timing  # noqa: E402
from benchmarks.setting import Setting, Step, Training  # noqa: E402
from skinlesion.errors import SkinlesionError  # noqa: E402

SMALL = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def words(archive, tmp_path_factory):
    """Overrides of a network that is quick."""
    cache = f"machine.cache={tmp_path_factory.mktemp('cache')}"
    return (f"machine.data={archive}", cache, "backbone.input_size=64", "machine.device=cpu")


@pytest.fixture(scope="module")
def setting(words):
    return Setting(words, batch=8, seconds=0.01)


@pytest.fixture
def bench(tmp_path, words):
    """A function that runs the command and returns the device's folder."""

    def run(*arguments):
        command.main([*arguments, *words, "--out", str(tmp_path)])
        return next(tmp_path.iterdir(), tmp_path)

    return run


@pytest.fixture
def quick(monkeypatch):
    """The backbones of which the pipeline was measured, which costs nothing."""
    calls = []

    def run(setting, backbone):
        calls.append(backbone)
        if backbone == "resnet152":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")
        return [{"value": len(calls), "spread": [0.5, 1234.5]}]

    monkeypatch.setattr(pipeline, "run", run)
    return calls


def test_two_things_are_measured_in_turn_and_compared_round_by_round():
    found = iter([4.0, 2.0, 9.0, 3.0, 1.0, 1.0])
    row = timing.compared({name: lambda: next(found) for name in "ab"})
    # The rounds' ratios are 2, 3 and 1; the ratio of the medians, which are 4 and 2, says less.
    assert row == {"a": 4, "b": 2, "ratio": 2, "lowest to highest": [1, 3]}


def test_a_function_runs_in_a_process_of_its_own_whose_error_is_told():
    row = timing.in_subprocess(timing.summary, ["a", "b"], [[4, 2]])
    assert row == {"a": 4, "b": 2, "ratio": 2, "lowest to highest": [2, 2]}
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        timing.python("-c", "raise SystemExit('a traceback\\nout of memory')")


def test_what_was_typed_wins_over_the_defaults_and_a_measurement_over_both(words):
    setting = Setting((*words, "preprocess=released", "augment=datta", "backbone=resnet50"))
    job = setting.job("mobilenet_v2", "augment=none")
    assert (job.weights, job.preprocess["name"]) == ("none", "released")
    assert (job.backbone["name"], job.augment) == ("mobilenet_v2", None)
    assert job.backbone["input_size"] == 64


def test_a_batch_is_smaller_only_where_nobody_asked_for_one(words):
    assert Setting(words).job("mobilenet_v2").batch_size == 32
    assert Setting(words).job("nasnet_large").batch_size == 8
    assert Setting(words, batch=24).job("nasnet_large").batch_size == 24
    assert Setting((*words, "batch_size=5")).job("nasnet_large").batch_size == 5


def test_the_step_alone_trains_on_one_batch(setting):
    step = Step(setting.job(SMALL))
    first = step.loss()
    for _ in range(4):
        step()
    assert step.batch["image"].shape == (8, 3, 64, 64)
    assert step.loss() < first
    torch.testing.assert_close(step.predict(step.batch).sum(1), torch.ones(8))
    assert step.module.training


def test_training_is_timed_in_the_middle_of_an_epoch(setting):
    training = Training(setting.job(SMALL, "scheduler=none"))
    before = [weight.detach().clone() for weight in training.module.parameters()]
    assert training.milliseconds(0.01) > 0
    pairs = zip(before, training.module.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs)


def test_too_few_images_for_a_batch_are_one_line(setting):
    with pytest.raises(SkinlesionError, match="expected two batches of 64"):
        Step(setting.job(SMALL, "batch_size=64"))


def test_the_head_is_what_follows_the_backbone(setting):
    step = Step(setting.job(SMALL))
    attention.head_step(step)()
    named = step.module.network.named_parameters()
    has_gradient = {name.split(".")[0] for name, weight in named if weight.grad is not None}
    assert has_gradient > {"dense"}
    assert "backbone" not in has_gradient


def test_work_grows_with_the_images_as_worked_out_by_hand():
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    image = torch.randn(2, 8, 5, 5, requires_grad=True)
    with limits.flop_counter() as counter:
        convolution(image).sum().backward()
    # 400 outputs of 9 products and sums each: once forwards, and for each of the two gradients.
    assert counter.get_total_flops() == 3 * 2 * 400 * 9
    with limits.Traffic() as traffic:
        (image.detach() + 1).relu_()
    # Two kernels that read 400 floats and write as many; a view is none.
    assert (traffic.launches, traffic.bytes) == (2, 4 * 4 * 400)


def test_a_step_is_limited_by_what_takes_longest():
    work = {"forward": 1e9, "arithmetic": 3e9, "memory": 4e9, "launches": 100.0}
    row = limits.bounds("cpu", 2, work, {"arithmetic": 1e12, "memory": 1e12, "launches": 2e5})
    assert (row["limited by"], row["at least, ms"]) == ("memory", 4.0)
    assert row["training, GFLOP an image"] == 1.5


def test_results_are_kept_with_what_they_were_measured_with(bench, quick, words):
    folder = bench("pipeline", "--backbones", "resnet152,mobilenet_v2")
    assert {path.name for path in folder.iterdir()} == {
        *("pipeline-resnet152.json", "pipeline-mobilenet_v2.json", "bench.md")
    }
    written = json.loads((folder / "pipeline-mobilenet_v2.json").read_text())
    assert written["rows"] == [{"value": 2, "spread": [0.5, 1234.5]}]
    assert (written["batch_size"], written["overrides"]) == (32, [*words])
    assert {"commit", "packages", "cpu"} <= set(written["provenance"])
    page = (folder / "bench.md").read_text()
    assert "| backbone | value | spread | problem |\n| --- | --- | --- | --- |\n" in page
    assert "| mobilenet_v2 | 2 | 0.5 to 1,234 | - |\n" in page
    assert "| resnet152 | - | - | out of memory |\n" in page  # a result, and the others go on


def test_what_is_measured_already_is_not_measured_again(bench, quick, capsys):
    bench("pipeline", "--backbones", "resnet50", "--minutes", "0")
    assert "1 left: the same command goes on" in capsys.readouterr().out
    for more in ([], [], ["--batch", "4"]):
        folder = bench("pipeline", "--backbones", "resnet50", *more)
    assert len(quick) == 2
    path = folder / "pipeline-resnet50.json"
    path.write_text(path.read_text().replace('"commit": "', '"commit": "another'))
    bench("pipeline", "--backbones", "resnet50", "--batch", "4")
    assert len(quick) == 3


def test_wrong_words_and_damaged_files_are_one_line(bench, quick):
    with pytest.raises(SkinlesionError, match="no measurement speed; there are pipeline, baseline"):
        bench("speed")
    folder = bench("pipeline", "backbone=resnet50")
    (folder / "pipeline-resnet50.json").write_text("{")
    with pytest.raises(SkinlesionError, match=r"pipeline-resnet50.json is damaged"):
        bench("pipeline", "backbone=resnet50")


def test_measurements_of_earlier_releases_are_still_shown(tmp_path):
    shutil.copy(ROOT / "results/bench/cpu-2-cores/growth-mobilenet_v3_small.json", tmp_path)
    assert "| mobilenet_v3_small | 100 | 995,800 |" in results.write_page(tmp_path)
