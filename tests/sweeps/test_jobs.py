"""A sweep file, and the jobs that follow from it."""

import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.reporting.published import read_published
from skinlesion.runs.directory import identity
from skinlesion.sweeps.jobs import CONF, names, read_sweep

PAPER = [f"table{number}" for number in range(3, 12)]
STUDIES = [
    "ablation",
    "augmentation",
    "backbones",
    "folds",
    "leakage",
    "paper",
    "resnet50",
    "rivals",
]
STUDIES += ["truncation", "truncation_small", "yao_search", "yao_steps"]


def test_the_sweeps_are_those_of_the_paper_and_the_studies():
    assert names() == sorted([*PAPER, *STUDIES])


@pytest.mark.parametrize("name", [*PAPER, *STUDIES])
def test_every_sweep_composes(name):
    sweep = read_sweep(name, ["seed=0"])
    labels = {axis: [*values.values()] for axis, values in sweep.axes.items()}
    assert all(labels.values())
    assert sweep.title
    assert sweep.columns
    assert len({identity(job.config) for job in sweep.jobs}) >= len(sweep.jobs) - (
        name in ("table9", "paper")  # the row that is printed twice
    )


@pytest.mark.parametrize("number", range(3, 12))
def test_rows_and_columns_are_those_that_are_published(number):
    sweep, cells = read_sweep(f"table{number}", ["seed=0"]), read_published()
    assert sweep.table == number
    assert set(sweep.axes["experiment"]) == {row for table, row, _ in cells if table == number}
    assert set(sweep.columns) == {column for table, _, column in cells if table == number}


def test_an_experiment_is_a_row_of_the_paper_or_the_rivals():
    experiments = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    others = {"as_written", "as_released", "demo", "yao", "rival_gessert", "table9_230_again"}
    rows = {
        name: set(read_sweep(name, ["seed=0"]).axes["experiment"]) for name in ("paper", "rivals")
    }
    assert rows["paper"] | rows["rivals"] == experiments - others


def test_seeds_and_choices_are_multiplied_and_the_seed_reaches_the_config():
    sweep = read_sweep("leakage", ["experiment=md_resnet50,md_mobilenet_v2"])
    assert {job.seed for job in sweep.jobs} == {0, 1, 2}
    assert sweep.across == "split"
    assert len(sweep.jobs) == 2 * 2 * 3
    for job in sweep.jobs:
        assert job.config.seed == job.config.split.seed == job.seed
        assert job.config.split.name == job.choice["split"]
        assert job.choice["experiment"] == f"md_{job.config.backbone.name}"


def test_the_command_line_wins_and_adds_axes_of_its_own():
    cuts = ("layer3.5.act3", "layer4.0.act3")
    words = ["backbone=resnet50", f"backbone.cut={','.join(cuts)}", "dropout=0,0.5"]
    sweep = read_sweep("truncation", words)
    assert {job.config.backbone.name for job in sweep.jobs} == {"resnet50"}
    assert [*sweep.axes] == ["backbone.cut", "dropout"]
    assert sweep.axes["backbone.cut"] == {cut: f"cut={cut}" for cut in cuts}
    assert len(sweep.jobs) == 2 * 2 * 3


def test_what_holds_for_every_row_labels_none():
    sweep = read_sweep("table10", ["budget=cpu", "seed=1"])
    assert [*sweep.axes] == ["experiment"]
    assert sweep.jobs[0].config.batch_size == 10


@pytest.mark.parametrize("again", ["table9 table9_230_again", "table10 table9_240"])
def test_a_row_that_is_printed_twice_is_one_run(again):
    table, experiment = again.split()
    (there,) = read_sweep(table, ["seed=0", f"experiment={experiment}"]).jobs
    once = experiment.removesuffix("_again")
    (here,) = read_sweep("table9", ["seed=0", f"experiment={once}"]).jobs
    assert identity(here.config) == identity(there.config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "sweep.title: expected a value; .*sweep.axes: expected"),
        ("sweep: {title: x, axes: {seed: [0]}}", "sweep.columns: expected a value"),
        ("sweep: {title: x, axes: {}, columns: {}, rows: 1}", "sweep.rows: there is no such key"),
    ],
)
def test_a_wrong_sweep_file_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(f"defaults: [/config, _self_]\n{text}")
    with pytest.raises(SkinlesionError, match=message):
        read_sweep(str(path))
