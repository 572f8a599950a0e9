import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from skinlesion.bench import __main__ as command
from skinlesion.bench import timing
from skinlesion.bench.process import Fresh
from skinlesion.bench.report import number, page
from skinlesion.bench.results import Measurement, Result, folder, load, read
from skinlesion.bench.setting import Setting
from skinlesion.errors import SkinlesionError

Fake = Callable[..., Measurement]


@pytest.fixture
def bench(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """A function that runs the command and returns the device's folder."""
    monkeypatch.setattr(command, "MEASUREMENTS", {"fake": "nothing"})

    def run(*arguments: str, backbones: str = "resnet50,mobilenet_v2") -> Path:
        command.main([*arguments, *words, "--backbones", backbones, "--out", str(tmp_path)])
        return folder(tmp_path, Setting(words))

    return run


def test_functions_are_timed_in_turn() -> None:
    calls: list[str] = []
    functions: dict[str, Callable[[], object]] = {
        "a": lambda: calls.append("a"),
        "b": lambda: calls.append("b"),
    }
    measured = timing.in_turn(functions, rounds=3)
    assert "".join(calls) == "ab" + "ababab"  # the first to warm up
    assert [len(seconds) for seconds in measured.values()] == [3, 3]
    assert all(second >= 0 for seconds in measured.values() for second in seconds)


def test_rounds_end_when_the_time_is_over_but_not_before_three() -> None:
    calls: list[float] = []

    def measure() -> float:
        calls.append(1.5)
        return 1.5

    measured = timing.in_turn({"a": measure}, rounds=100, seconds=0, warm_up=False)
    assert measured == {"a": [1.5, 1.5, 1.5]}  # what it returned, not how long it took
    assert len(calls) == 3


def test_a_ratio_is_the_median_of_the_rounds_and_knows_its_spread() -> None:
    # 2, 3 and 1; the medians themselves are 4 and 2, 9 and 1 the extremes.
    assert timing.ratio([4, 9, 1], [2, 3, 1]) == (2, [1, 3])
    # 8, 1 / 8 and 2: of their own round each.
    assert timing.ratio([8, 1, 4], [1, 8, 2]) == (2, [0.125, 8])


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 3), (1e9, 8)])
def test_what_is_affordable_has_bounds(seconds: float, times: int) -> None:
    assert timing.affordable(lambda: None, seconds, least=3, most=8) == times


def test_memory_that_the_process_owns_is_seen_at_its_peak() -> None:
    if not timing.STATUS.exists():
        pytest.skip("needs Linux's /proc")
    with timing.PeakMemory() as memory:
        held = torch.ones(16 * 2**20)  # 64 MB of float32
        time.sleep(0.1)
        del held
    assert memory.peak - memory.before > 32 * 2**20


def test_what_was_typed_wins_over_the_bench_and_a_measurement_over_both(
    words: tuple[str, ...],
) -> None:
    setting = Setting((*words, "preprocess=released", "augment=datta", "backbone=resnet50"))
    config = setting.job("mobilenet_v2", "augment=none")
    assert (config.weights, config.preprocess.name) == ("none", "released")
    assert (config.backbone.name, config.augment) == ("mobilenet_v2", None)
    assert setting.job().backbone.name == "resnet50"
    assert config.backbone.input_size == 64


def test_a_batch_is_smaller_only_where_nobody_asked_for_one(words: tuple[str, ...]) -> None:
    setting, asked = Setting(words), Setting(words, batch=24)
    assert setting.job("mobilenet_v2").batch_size == setting.batch_size == 32
    assert setting.job("nasnet_large").batch_size == 8
    assert asked.job("nasnet_large").batch_size == 24
    assert Setting((*words, "batch_size=5")).job("mobilenet_v2").batch_size == 5


def test_samples_are_opened_once_for_an_input_size(setting: Setting) -> None:
    one, other = setting.job("mobilenet_v2"), setting.job("resnet50")
    larger = setting.job("resnet50", "backbone.input_size=72")
    assert setting.samples(one) is setting.samples(other)
    assert setting.samples(larger).images.shape[1:] == (72, 72, 3)


def test_the_step_alone_trains_on_one_batch(setting: Setting) -> None:
    step = setting.steps(setting.job("mobilenet_v3_small"))
    before = [p.detach().clone() for p in step.module.network.parameters()]
    first = step()
    for _ in range(4):
        last = step()
    assert step.batch["image"].shape == (8, 3, 64, 64)
    assert not any(
        torch.equal(a, b) for a, b in zip(before, step.module.network.parameters(), strict=True)
    )
    assert last < first
    probabilities = step.probabilities()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(8))
    assert step.module.network.training


def _counter(start: int) -> Callable[[int], int]:
    state = {"count": start}

    def add(more: int) -> int:
        if more < 0:
            raise SkinlesionError("less than nothing")
        if more == 13:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if more == 99:
            signal.raise_signal(signal.SIGKILL)
        state["count"] += more
        return state["count"]

    return add


@pytest.fixture
def counter() -> Iterator[Fresh]:
    with Fresh(_counter, 5) as fresh:
        yield fresh


def test_a_fresh_process_keeps_what_was_prepared(counter: Fresh) -> None:
    assert [counter(1), counter(10)] == [6, 16]
    with pytest.raises(SkinlesionError, match="less than nothing"):
        counter(-1)
    with pytest.raises(RuntimeError, match="OutOfMemoryError: CUDA out of memory"):
        counter(13)
    assert counter(1) == 17  # and goes on after an error
    with pytest.raises(MemoryError, match="code -9"):
        counter(99)


def test_every_measurement_has_its_module() -> None:
    for name in command.MEASUREMENTS:
        measurement = load(name)
        assert measurement.name == name
        assert measurement.title
        assert measurement.how.endswith(".")


def test_a_result_is_written_with_what_it_was_measured_with(
    bench: Callable[..., Path], fake: Fake, words: tuple[str, ...]
) -> None:
    fake([{"value": 1.25}])
    where = bench()
    assert where.name.startswith("cpu-")
    assert where.name.endswith("-cores")
    names = {"fake-resnet50.json", "fake-mobilenet_v2.json", "bench.md"}
    assert {path.name for path in where.iterdir()} == names
    written = json.loads((where / "fake-resnet50.json").read_text())
    assert set(written) == {
        *("measurement", "backbone", "rows", "overrides", "batch_size", "seconds", "provenance"),
    }
    assert written["rows"] == [{"value": 1.25}]
    assert (written["batch_size"], written["overrides"]) == (32, [*words])
    assert {"commit", "packages", "cpu"} <= set(written["provenance"])


def test_what_is_measured_already_is_not_measured_again(
    bench: Callable[..., Path], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []

    def run(setting: Setting, backbone: str) -> list[dict[str, Any]]:
        calls.append(backbone)
        return [{"value": len(calls)}]

    fake(run)
    bench(backbones="resnet50")
    bench()
    assert calls == ["resnet50", "mobilenet_v2"]
    assert "1/2 fake resnet50: is there" in capsys.readouterr().out
    bench("--again")
    bench("--batch", "4")
    bench("--batch", "4", "seed=3")
    assert calls[2:] == ["resnet50", "mobilenet_v2"] * 3


def test_a_result_of_another_commit_is_measured_again(
    bench: Callable[..., Path], fake: Fake
) -> None:
    fake([{"value": 1}])
    path = bench() / "fake-resnet50.json"
    changed = json.loads(path.read_text())
    changed["provenance"]["commit"] = "another"
    path.write_text(json.dumps(changed))
    fake([{"value": 2}])
    bench()
    assert read(path).rows == [{"value": 2}]
    assert read(path.with_name("fake-mobilenet_v2.json")).rows == [{"value": 1}]


def test_running_out_of_memory_is_a_result_and_the_others_go_on(
    bench: Callable[..., Path], fake: Fake
) -> None:
    errors = {
        "resnet50": torch.OutOfMemoryError("CUDA"),
        "resnet152": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …"),
        "densenet201": MemoryError(),
    }

    def run(setting: Setting, backbone: str) -> list[dict[str, Any]]:
        if backbone in errors:
            raise errors[backbone]
        return [{"value": 3}]

    fake(run)
    where = bench(backbones=",".join([*errors, "mobilenet_v2"]))
    for backbone in errors:
        assert read(where / f"fake-{backbone}.json").rows == [{"problem": "out of memory"}]
    assert read(where / "fake-mobilenet_v2.json").rows == [{"value": 3}]
    assert "| resnet50 | - | out of memory |" in (where / "bench.md").read_text()


def test_another_error_is_not_hidden(bench: Callable[..., Path], fake: Fake) -> None:
    def run(setting: Setting, backbone: str) -> list[dict[str, Any]]:
        raise RuntimeError("shapes cannot be multiplied")

    fake(run)
    with pytest.raises(RuntimeError, match="shapes"):
        bench()


def test_an_interruption_loses_nothing(bench: Callable[..., Path], fake: Fake) -> None:
    def run(setting: Setting, backbone: str) -> list[dict[str, Any]]:
        if backbone == "mobilenet_v2":
            raise KeyboardInterrupt
        return [{"value": 7}]

    fake(run)
    with pytest.raises(KeyboardInterrupt):
        bench()
    fake([{"value": 8}])
    text = (bench() / "bench.md").read_text()
    assert "| resnet50 | 7 |" in text
    assert "| mobilenet_v2 | 8 |" in text


def test_nothing_begins_after_the_time_is_over(
    bench: Callable[..., Path], fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake([{"value": 1}])
    bench("--minutes", "1e-9")
    assert "2 left: the same command goes on" in capsys.readouterr().out


def test_what_is_not_for_each_backbone_is_measured_of_the_configs_own(
    bench: Callable[..., Path], fake: Fake
) -> None:
    fake([{"value": 1}], each=False)
    where = bench("backbone=resnet152")
    assert [path.name for path in where.glob("*.json")] == ["fake-resnet152.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["speed"], "no measurement speed; there are pipeline, ordinary"),
        (["--backbones", "resnet51"], "no backbone resnet51; there are densenet201"),
        (["--batch", "0"], "--batch 0: expected a number above 0"),
    ],
)
def test_wrong_words_are_answered_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(SkinlesionError, match=message):
        command.main(arguments)


def test_a_damaged_file_is_named(bench: Callable[..., Path], fake: Fake) -> None:
    fake([{"value": 1}])
    path = bench() / "fake-resnet50.json"
    path.write_text("{}")
    with pytest.raises(SkinlesionError, match=r"fake-resnet50.json is no result"):
        bench()


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (0.95162, "0.952"),
        (1234.5, "1,230"),
        (19.96, "20.0"),
        (9.996, "10.0"),
        (0.00012345, "1.2e-04"),
        (0.0, "0"),
        (8962, "8,962"),
        (None, "-"),
        ([0.5, 2.0], "0.500 to 2.00"),
        ("a|b", "a\\|b"),
    ],
)
def test_a_number_has_three_digits_that_count(value: Any, cell: str) -> None:
    assert number(value) == cell


def test_the_page_says_where_results_differ(fake: Fake) -> None:
    made_with = {
        **dict.fromkeys(("gpu", "cuda"), None),
        **{"commit": "aaa", "dirty": False, "packages": {"torch": "2.6"}, "cpu": "A CPU"},
        **{"cores": 2, "threads": 2, "platform": "Linux", "python": "3.12"},
    }
    result = Result("fake", "resnet50", [{"value": 2.5}], [], 32, 1.0, made_with)
    other = replace(result, backbone="vgg16", provenance={**made_with, "commit": "bbb"})
    text = page([fake([])], [result, other])
    assert "# Benchmark: A CPU" in text
    assert "- commit: **differs**: aaa (1 results); bbb (1 results)" in text
    assert "- torch: 2.6\n" in text
    assert "## A title\n\nNothing is divided." in text
    assert (
        "| backbone | value, unit |\n| --- | --- |\n| resnet50 | 2.50 |\n| vgg16 | 2.50 |" in text
    )
