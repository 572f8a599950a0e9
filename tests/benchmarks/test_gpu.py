"""``make gpu`` works for minutes, goes on and carries home; ``make gpu-bundle`` packs for it."""

import subprocess
import sys
import time
from pathlib import Path
from zipfile import ZipFile

import pytest

from benchmarks import bundle, gpu
from skinlesion.errors import SkinlesionError

ROOT = Path(__file__).parents[2]

MACHINE = {"commit": "1a2b3c", "dirty": False, "gpu": None}
SUITE = '<testsuites><testsuite name="1a2b3c"><testcase name="a"/>{}</testsuite></testsuites>'


@pytest.fixture
def work(tmp_path):
    words = ("--backbones=resnet50", f"--data={tmp_path}", f"--weights={tmp_path}", "seed=7")
    options = gpu._parser().parse_args([*words, f"--out={tmp_path}"])
    return gpu.Work(options, MACHINE, time.monotonic() + 600)


def test_without_a_gpu_nothing_is_begun(monkeypatch):
    monkeypatch.setattr(gpu, "probe", lambda: MACHINE)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SkinlesionError, match=r"sees no GPU .* DEVICE=cpu"):
        gpu.main()


def test_what_runs_is_stopped_when_its_time_is_over_and_its_words_are_kept(work, monkeypatch):
    monkeypatch.setattr(gpu, "SHORTEST", 0)
    assert work.call("some", ("-c", "raise SystemExit('done')"), work.deadline) == 1
    endless = "import time; print('begun'); time.sleep(60)"
    assert work.call("some", ("-c", endless), time.monotonic() + 1) is None
    assert (work.out / "log/some.txt").read_text() == "done\nbegun\n"


def test_what_passed_is_not_tested_again_and_what_failed_is_named(work):
    (work.out / "tests").mkdir()
    work.deadline = 0  # so that nothing is started
    for path in (ROOT / "tests/gpu").glob("test_*.py"):
        (work.out / f"tests/{path.stem}.xml").write_text(SUITE.format(""))
    work.tests(0)
    assert work.said["tests"].endswith("0 skipped, failed: none")
    bad = SUITE.format('<testcase name="b"><failure/></testcase>')
    (work.out / "tests/other.xml").write_text(bad)
    work.tests(0)
    assert work.said["tests"].endswith("0 skipped, failed: b")


def test_a_benchmark_that_fails_keeps_no_other_from_being_measured(work, monkeypatch):
    monkeypatch.setattr(work, "call", lambda log, words, until: int("pipeline" in words))
    work.benchmarks(0)
    assert (work.said["benchmarks"], work.failed) == ("0 measured, failed: pipeline", True)
    assert {"seed=7", "experiment=md_resnet50"} < {*work.job("seed=0")}  # what is typed wins


def test_a_bundle_is_for_one_python_and_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "before")
    tag = "cp{}{}".format(*sys.version_info)
    other, wheel = (tmp_path / f"wheels/a-1-{of}-{of}-linux.whl" for of in ("cp39", tag))
    other.parent.mkdir()
    with ZipFile(other, "w") as file:
        file.writestr("only_there.py", "")
    with pytest.raises(SkinlesionError, match=r"another Python, this is .*PYVERSION="):
        bundle.unpack(tmp_path)
    other.rename(wheel)
    bundle.unpack(tmp_path)
    subprocess.run([sys.executable, "-c", "import only_there"], check=True)
    monkeypatch.setattr(bundle, "LIMIT", 10)
    with pytest.raises(SkinlesionError, match=r"0.0 MiB \(data 0.0\): expected at most"):
        bundle.check({"data": [wheel], "weights": []})
