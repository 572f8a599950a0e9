"""The paper's claims: pairs of runs that differ in one thing, measured over seeds and lesions."""

import itertools

import pytest

from skinlesion.cli import main
from skinlesion.reporting.claims import Estimate, judge
from skinlesion.reporting.results import Results

ABLATION = "attention=none,paper", "metadata=none,paper", "loss=weighted"


def judged(folder, name="soft_attention"):
    runs = [*Results(folder.path).every_run()]
    return next(claim for claim in judge(runs) if claim.name == name)


def test_every_contrast_is_trained_by_the_sweep_that_it_names(folder):
    for claim in judge([]):
        assert all(cells.text for cells in claim.claim.published)
        assert claim.verdict == ("not run" if claim.claim.contrasts else "-")
        for contrast in claim.not_run:
            found = [value_at(job.config, contrast) for job in folder.sweep(contrast.sweep).jobs]
            assert set(contrast.values) <= set(found), contrast


def value_at(config, contrast):
    node, _, name = contrast.switch.partition(".")
    return (config[node] or {}).get(name)


def test_a_pair_differs_in_the_switch_alone_and_is_averaged_over_settings_then_seeds(folder):
    sweep = folder.sweep("ablation", *ABLATION, "seed=0,1,2")
    for job in sweep.jobs:
        better = 0.1 * (job.choice["attention"] == "paper") * (1 + job.seed)
        folder.add(job, 0.5 + better + 0.05 * (job.choice["metadata"] == "paper"))
    folder.add(folder.sweep("ablation", "attention=paper", "dropout=0.1", "seed=3").jobs[0], 0.1)
    (tested,) = judged(folder).tested
    assert (tested.protocol, tested.settings, tested.seeds) == ("by lesion", 2, [0, 1, 2])
    accuracy = tested.estimates[0]
    assert accuracy.address == "accuracy"
    assert accuracy.difference == pytest.approx(0.2)  # the mean of 0.1, 0.2 and 0.3
    assert accuracy.ends[0] < 0.12  # as if 0.1 had been drawn three times
    assert accuracy.ends[1] > 0.28


def test_settings_count_that_have_the_most_seeds(folder):
    jobs = folder.sweep("ablation", *ABLATION, "seed=0,1").jobs
    for job in jobs:
        if job.choice["metadata"] == "paper" or job.seed == 0:
            folder.add(job, 0.5 if job.choice["metadata"] == "paper" else 0.9)
    (tested,) = judged(folder).tested
    assert (tested.settings, tested.seeds) == (1, [0, 1])
    assert tested.estimates[0].before == pytest.approx(0.5)


def test_a_measurement_by_image_stands_there_and_decides_nothing(folder):
    for split, best in (("paper", "paper"), ("lesion", "none")):
        for job in folder.sweep("ablation", *ABLATION, "seed=0,1", f"split={split}").jobs:
            folder.add(job, 0.9 if job.choice["attention"] == best else 0.2)
    claim = judged(folder)
    assert [tested.protocol for tested in claim.tested] == ["by lesion", "by image"]
    assert claim.tested[1].estimates[0].verdict == "supported"
    assert claim.verdict == "contradicted"


@pytest.mark.parametrize(
    ("said", "ends", "seeds", "verdict"),
    [
        ("more", (0.01, 0.2), 3, "supported"),
        ("less", (0.01, 0.2), 3, "contradicted"),
        ("less", (-0.2, -0.01), 2, "supported"),
        ("more", (-0.01, 0.2), 3, "not settled"),
        ("more", (0.01, 0.2), 1, "not settled"),
        ("more", (float("nan"),) * 2, 3, "not settled"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_0_and_two_seeds(said, ends, seeds, verdict):
    assert Estimate("accuracy", 0.5, 0.6, ends, said, seeds).verdict == verdict


def test_the_command_writes_a_page_that_names_what_is_not_run(folder, tmp_path, capsys):
    for job, right in zip(folder.sweep("augmentation").jobs, itertools.cycle((0.9, 0.5, 0.7))):
        folder.add(job, right)
    assert main(["claims", str(folder.path), "--out", str(tmp_path / "claims.md")]) == 0
    assert "Augmentation makes the model less balanced" in capsys.readouterr().out
    page = (tmp_path / "claims.md").read_text()
    assert "`augment.rotation` from none to 180, by lesion: mobilenet_v3_small," in page
    assert "`make sweep SWEEP=truncation`" in page
    assert "SWEEP=augmentation" not in page


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"there is no folder .*nowhere"):
        main(["claims", str(tmp_path / "nowhere")])


def test_of_several_runs_of_one_config_the_first_counts(folder):
    for key, right in (("a", 0.5), ("b", 0.9)):
        for job in folder.sweep("augmentation", "seed=0").jobs:
            folder.add(job, right, key=key)
    (tested,) = judged(folder, "augmentation").tested
    assert (tested.settings, tested.estimates[3].before) == (1, pytest.approx(0.5))


def test_where_a_value_is_tested_all_else_of_its_node_is_the_same(folder):
    words = "preprocess=released", "scheduler=none", "seed=0"
    for eps, optimizer in (("0.1", "keras_adam"), ("1e-7", "adam")):
        sweep = folder.sweep("resnet50", *words, f"optimizer={optimizer}", f"optimizer.eps={eps}")
        folder.add(sweep.jobs[0])
    assert not judged(folder, "resnet50").tested
    folder.add(folder.sweep("resnet50", *words, "optimizer=adam", "optimizer.eps=0.1").jobs[0])
    assert judged(folder, "resnet50").tested[0].contrast.switch == "optimizer.eps"
