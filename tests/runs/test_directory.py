"""A run is found by what it is, whatever the machine and the state of other runs."""

import json
from itertools import product
from pathlib import Path

import pytest
from omegaconf import OmegaConf, open_dict

from skinlesion.errors import SkinlesionError
from skinlesion.runs.directory import RunDirectory, find_runs, identity, run_key
from skinlesion.sweeps.jobs import read_sweep

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "cpu" / "runs"


def write(path, job):
    path.mkdir(parents=True)
    OmegaConf.save(job, path / "config.yaml", resolve=True)
    return RunDirectory(path)


def test_the_published_runs_are_found():
    found, damaged = find_runs(RESULTS)
    assert not damaged
    recipe = ["budget=cpu", "scheduler.patience=2", "seed=0"]
    for words, count in (recipe, 6), ([*recipe, "attention=none"], 4):
        jobs = read_sweep("leakage", words).jobs
        assert sum(len(found.get(identity(job.config), [])) for job in jobs) == count


def test_a_new_option_that_is_null_orphans_no_run(plain):
    job = plain("seed=3")
    before, key = identity(job), run_key(job, "data", "weights")
    with open_dict(job):
        job.new_option = None
        job.loss.new_option = None
    assert (identity(job), run_key(job, "data", "weights")) == (before, key)
    job.new_option = 1
    assert identity(job) != before


def test_nothing_of_the_machine_is_part_of_a_run_and_everything_else_is(plain):
    first = identity(plain())
    for override in ("machine=plain", "machine.runs=elsewhere", "machine.device=cpu", "weights=x"):
        assert identity(plain(override)) == first
    others = ["seed=1", "dropout=0.1", "precision=bf16-mixed", "data.resident=true", "data.limit=9"]
    assert len({first, *(identity(plain(override)) for override in others)}) == 6


def test_the_seed_is_no_part_of_a_key_but_data_and_weights_are(plain):
    key = run_key(plain(), "data", "weights")
    assert run_key(plain("seed=1"), "data", "weights") == key
    assert run_key(plain(), "other", "weights") != key != run_key(plain(), "data", "other")


def test_a_run_has_the_identity_of_its_job(plain, tmp_path):
    job = plain("split=lesion", "seed=2")
    assert write(tmp_path / "runs" / "b" / "k" / "seed2", job).identity == identity(job)


@pytest.mark.parametrize("words", [*product(["\\", "${", "}", "${oc.env:SECRET}", "'"], repeat=3)])
def test_no_text_of_a_config_is_resolved(tmp_path, monkeypatch, words):
    monkeypatch.setenv("SECRET", "hidden")
    (tmp_path / "config.yaml").write_text(json.dumps({"note": "".join(words)}))
    config = RunDirectory(tmp_path).config
    assert OmegaConf.to_container(config, resolve=True) == {"note": "".join(words)}


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"seed: [", b"\xff\xfe\x00", b"!!python/object/apply:os.getcwd []", b"- 1\n- 2"),
        *(b"[" * 100_000, b"a: &a [*a]", b"a: &a [1, 2]\nb: [*a, *a]"),
        *(b"a: 2020-01-01", b"a: !!binary aGVsbG8=", b"1: a\nb: c", b"data: 5"),
    ],
)
def test_one_bad_config_hides_no_other_run(plain, tmp_path, text):
    good = write(tmp_path / "b" / "good" / "seed0", plain())
    bad = write(tmp_path / "b" / "bad" / "seed0", plain())
    (bad.path / "config.yaml").write_bytes(text)
    found, damaged = find_runs(tmp_path)
    assert [directory.path for directory in found[good.identity]] == [good.path]
    assert [*damaged] == [bad.path]
    assert "cannot be read as a run's config" in damaged[bad.path]


def test_a_file_that_is_cut_is_named(tmp_path):
    (tmp_path / "metrics.json").write_text('{"parts": ')
    with pytest.raises(SkinlesionError, match=r"metrics\.json cannot be read"):
        RunDirectory(tmp_path).read_json("metrics.json")
