"""A sweep file, and the jobs that follow from it."""

from pathlib import Path

import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.reporting.published import read_published
from skinlesion.runs.directory import identity
from skinlesion.sweeps.jobs import CONF, names, parameters, read_sweep

PAPER = [f"table{number}" for number in range(3, 12)]
STUDIES = ["ablation", "backbones", "leakage", "paper", "truncation"]


@pytest.fixture
def sweep_file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(f"defaults: [/config, _self_]\n{text}")
        return str(path)

    return write


def test_the_sweeps_are_those_of_the_paper_and_four_studies() -> None:
    assert names() == sorted([*PAPER, *STUDIES])


@pytest.mark.parametrize("name", [*PAPER, *STUDIES])
def test_every_sweep_composes(name: str) -> None:
    sweep = read_sweep(name, ["seed=0"])
    labels = {axis: [*values.values()] for axis, values in sweep.axes.items()}
    assert all(labels.values())
    assert sweep.title
    assert sweep.columns
    assert len({identity(job.config) for job in sweep.jobs}) >= len(sweep.jobs) - (
        name in ("table9", "paper")  # the row that is printed twice
    )


@pytest.mark.parametrize("number", range(3, 12))
def test_rows_and_columns_are_those_that_are_published(number: int) -> None:
    sweep, cells = read_sweep(f"table{number}", ["seed=0"]), read_published()
    assert sweep.table == number
    assert set(sweep.axes["experiment"]) == {row for table, row, _ in cells if table == number}
    assert set(sweep.columns) == {column for table, _, column in cells if table == number}


def test_an_experiment_of_the_tables_is_a_row_of_the_paper_sweep() -> None:
    experiments = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    others = {"as_written", "as_released", "demo"}
    shared = {"table9_230_again"}
    assert set(read_sweep("paper", ["seed=0"]).axes["experiment"]) == experiments - others - shared


def test_seeds_and_choices_are_multiplied_and_the_seed_reaches_the_config() -> None:
    sweep = read_sweep("leakage", ["experiment=md_resnet50,md_mobilenet_v2"])
    assert sweep.seeds == (0, 1, 2)
    assert sweep.across == "split"
    assert len(sweep.jobs) == 2 * 2 * 3
    for job in sweep.jobs:
        assert job.config.seed == job.config.split.seed == job.seed
        assert job.config.split.name == job.choice["split"]
        assert job.choice["experiment"] == f"md_{job.config.backbone.name}"


def test_the_command_line_wins_and_adds_axes_of_its_own() -> None:
    sweep = read_sweep(
        "truncation",
        ["backbone=resnet50", "backbone.cut=layer3.5.act3,layer4.0.act3", "dropout=0,0.5"],
    )
    assert {job.config.backbone.name for job in sweep.jobs} == {"resnet50"}
    assert [*sweep.axes] == ["backbone.cut", "dropout"]
    assert sweep.axes["backbone.cut"] == {
        "layer3.5.act3": "cut=layer3.5.act3",
        "layer4.0.act3": "cut=layer4.0.act3",
    }
    assert len(sweep.jobs) == 2 * 2 * 3


def test_what_holds_for_every_row_labels_none() -> None:
    sweep = read_sweep("table10", ["budget=cpu", "seed=1"])
    assert [*sweep.axes] == ["experiment"]
    assert sweep.jobs[0].config.batch_size == 10


def test_one_row_of_two_tables_is_one_run() -> None:
    (here,) = read_sweep("table10", ["seed=0"]).jobs
    there = read_sweep("table9", ["seed=0", "experiment=table9_240"]).jobs[0]
    assert identity(here.config) == identity(there.config)


def test_the_row_that_is_printed_twice_is_one_run() -> None:
    jobs = read_sweep("table9", ["seed=0", "experiment=table9_230,table9_230_again"]).jobs
    assert len({identity(job.config) for job in jobs}) == 1


def test_parameters_are_what_hydras_sweeper_takes() -> None:
    axes = {"experiment": {"a": "A", "b": "B"}, "seed": [0, 1]}
    assert parameters(axes) == {"experiment": "a,b", "seed": "0,1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1", "has no node `sweep`: expected across, axes"),
        ("sweep: {title: x, axes: {seed: [0]}}", "sweep lacks columns and has unknown nothing"),
        ("sweep: {title: x, axes: {}, columns: {}, rows: 1}", "has unknown rows"),
    ],
)
def test_a_wrong_sweep_file_says_what_is_wrong(sweep_file, text: str, message: str) -> None:
    with pytest.raises(SkinlesionError, match=message):
        read_sweep(sweep_file(text))


def test_a_sweep_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(SkinlesionError, match=r"no sweep table12; there are ablation, backbones"):
        read_sweep("table12")
