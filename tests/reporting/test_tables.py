"""Tables from run directories: published, audited, ours, and what is said beside them."""

import csv
import io
import re
import time

import numpy as np
import pytest

from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import read_predictions
from skinlesion.reporting.page import tables_page
from skinlesion.reporting.published import Cell
from skinlesion.reporting.render import MINUS, grid, latex, long_csv, markdown, missing, notes
from skinlesion.reporting.tables import Entry, Ours, Results, Table, build_table
from skinlesion.runs.outcome import Failures
from skinlesion.runs.directory import identity


def row_of(table: Table, label: str, group: str = ""):
    (row,) = (row for row in table.rows if (row.label, row.group) == (label, group))
    return row


def test_a_cell_is_the_mean_over_seeds_beside_the_published_and_the_audited(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_mobilenet_v2")
    for job, right in zip(sweep.jobs, (0.7, 0.8, 0.9), strict=True):
        folder.add(job, right)
    row = row_of(folder.table(sweep), "MobileNetV2")
    entry = row.entries["accuracy"]
    assert entry.published is not None
    assert (entry.published.published, entry.published.audited) == ("0.81", pytest.approx(0.8092))
    assert entry.ours is not None
    assert entry.ours.mean == pytest.approx(0.8)
    assert entry.ours.sd == pytest.approx(np.std([0.7, 0.8, 0.9]))
    assert entry.ours.low < 0.8 < entry.ours.high
    assert entry.difference == pytest.approx(-0.01)
    assert row.n == "3 x 40"
    assert not row.missing


def test_every_column_is_its_metric(folder) -> None:
    sweep = folder.sweep("table8", "experiment=md_mobilenet_v2", "seed=0")
    run = folder.add(sweep.jobs[0])
    part = read_predictions(run / "predictions.csv").part("val")
    measured = evaluate(part.y, part.probabilities, part.classes)
    entries = row_of(folder.table(sweep), "MobileNetV2").entries
    assert {name: entry.ours.mean for name, entry in entries.items()} == pytest.approx(
        {
            "accuracy": measured["accuracy"],
            "balanced_accuracy": measured["ovr_balanced_accuracy"],
            "precision": measured["macro"]["precision"],
            "f1": measured["macro"]["f1"],
            "sensitivity": measured["macro"]["recall"],
            "specificity": measured["macro"]["specificity"],
            "auc": measured["macro"]["auc"],
        }
    )


def test_costs_come_from_the_provenance_and_depth_is_not_measured(folder) -> None:
    sweep = folder.sweep("table11", "experiment=table9_240", "seed=0")
    folder.add(sweep.jobs[0])
    entries = row_of(folder.table(sweep), "MobileNetV3Large").entries
    assert entries["parameters"].ours == Ours(1.234567, None, None, None)
    assert entries["seconds_per_epoch"].ours == Ours(30.0, None, None, None)
    assert entries["depth"].ours is None
    assert "not measured" in markdown(folder.table(sweep))
    assert "not run" not in markdown(folder.table(sweep))


def test_what_is_not_run_says_so_and_names_the_command(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_mobilenet_v2,md_resnet50", "seed=0,1")
    folder.add(sweep.jobs[0])
    table = folder.table(sweep)
    assert missing(table) == "MobileNetV2 (seed 1); Resnet50 (seeds 0, 1)"
    assert row_of(table, "Resnet50").n == "-"
    text = markdown(table)
    assert "| Resnet50 | 0.70 | 0.702 | not run |" in text
    assert table.command in text
    assert table.command == (
        "python train.py -cd sweeps -cn table4 -m experiment=md_mobilenet_v2,md_resnet50 seed=0,1 "
        f"machine.runs={folder.path}"
    )


def test_a_run_that_is_not_done_does_not_count(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_mobilenet_v2", "seed=0")
    (folder.add(sweep.jobs[0]) / "DONE").unlink()
    assert row_of(folder.table(sweep), "MobileNetV2").missing == [0]


def test_why_a_run_failed_stands_below(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_resnet50", "seed=0")
    Failures(folder.path).record(identity(sweep.jobs[0].config), "out of memory")
    table = folder.table(sweep)
    assert "† Resnet50: seed 0 failed: out of memory" in notes(table)
    assert grid(table).body[0][0] == "Resnet50†"


def test_the_two_protocols_stand_side_by_side_and_the_test_part_is_reported(folder) -> None:
    sweep = folder.sweep("leakage", "experiment=md_mobilenet_v2", "seed=0")
    by_image, by_lesion = sweep.jobs
    folder.add(by_image, 0.9)
    folder.add(by_lesion, 0.6)
    table = folder.table(sweep)
    laid = grid(table)
    assert laid.head[2:5] == [
        *("by image (as published): accuracy", "by image (as published): balanced accuracy"),
        "by image (as published): mean AUC",
    ]
    lines = {line[1]: line for line in laid.body}
    assert (lines["ours"][2], lines["ours"][5]) == ("0.900", "0.600")
    assert (lines["published"][2].rstrip("*"), lines["published"][5]) == ("0.81", "")
    said = "\n".join(notes(table))
    assert "split=paper: val images, which selected the checkpoint; 25 % show a lesion" in said
    assert "split=lesion: test images, which selected nothing" in said


def test_a_published_value_outside_the_interval_is_marked(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_mobilenet_v2,md_resnet50", "seed=0")
    folder.add(sweep.jobs[0], right=0.8)
    folder.add(sweep.jobs[1], right=0.2)
    laid = grid(folder.table(sweep))
    assert [line[1] for line in laid.body] == ["0.81", "0.70*"]
    assert "* the published value lies outside our 95 % interval" in notes(folder.table(sweep))


@pytest.mark.parametrize(
    ("published", "outside"), [("0.80", False), ("0.70", True), ("0.745", False), ("0.855", True)]
)
def test_rounding_is_allowed_for(published: str, outside: bool) -> None:
    entry = Entry(Cell(published, None, ""), Ours(0.8, None, 0.75, 0.84))
    assert entry.outside is outside


@pytest.mark.parametrize(
    ("published", "audited", "contradicted"),
    [("0.90", 0.8750, True), ("0.80", 0.8095, False), ("116", 117, False), ("5.5", 2.67, True)],
)
def test_an_audit_contradicts_by_more_than_rounding(
    published: str, audited: float, contradicted: bool
) -> None:
    assert Entry(Cell(published, audited, "nb1"), None).contradicted is contradicted


def test_the_copied_cells_of_table_5_are_marked_and_explained(folder) -> None:
    sweep = folder.sweep("table5", "experiment=md_mobilenet_v2", "seed=0")
    lines = {line[1]: line for line in grid(folder.table(sweep)).body}
    vasc = 2 + [*sweep.columns].index("vasc")
    assert lines["audited"][vasc] == "0.875!"
    (said,) = (note for note in notes(folder.table(sweep)) if note.startswith("!"))
    assert "MobileNetV2 + Metadata, vasc: 0.9 printed, 0.875 (nb38; the paper copied nv)" in said


def test_other_data_uncommitted_changes_and_no_weights_are_marked(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_mobilenet_v2,md_resnet50,md_resnet152", "seed=0")
    folder.add(sweep.jobs[0])
    folder.add(sweep.jobs[1], data="f" * 64, dirty=True)
    folder.add(sweep.jobs[2], weights="none")
    table = folder.table(sweep)
    assert row_of(table, "MobileNetV2").notes == []
    assert row_of(table, "Resnet50").notes == [
        "other data than the other rows (digest ffffffff)",
        "made with uncommitted changes",
    ]
    assert row_of(table, "Resnet152").notes == ["from scratch, without pretrained weights"]


def test_seeds_of_other_data_are_not_mixed_into_a_cell(folder) -> None:
    sweep = folder.sweep("table4", "experiment=md_mobilenet_v2", "seed=0,1,2")
    folder.add(sweep.jobs[0], 0.8)
    folder.add(sweep.jobs[1], 0.9)
    folder.add(sweep.jobs[1], 0.1, key="other", data="f" * 64)
    folder.add(sweep.jobs[2], 0.1, key="other", data="f" * 64, weights="none")
    row = row_of(folder.table(sweep), "MobileNetV2")
    assert row.entries["accuracy"].ours.mean == pytest.approx(0.85)
    assert row.missing == [2]
    assert row.notes[0].startswith("2 further runs of other data or weights are left out: ")


def test_every_format_holds_every_number(folder) -> None:
    sweep = folder.sweep("table5", "experiment=md_mobilenet_v2,md_resnet50", "seed=0,1")
    for job in sweep.jobs:
        folder.add(job, 0.7 + 0.1 * job.seed)
    table = folder.table(sweep)
    cells = [cell for line in grid(table).body for cell in line]
    text, tex, html = markdown(table), latex(table), tables_page([table])
    for cell in cells:
        assert cell.replace("*", r"\*") in text
        assert cell.replace("±", r"$\pm$").replace("%", r"\%").replace(MINUS, "$-$") in tex or (
            " x " in cell
        )
        assert cell in html.replace("<wbr>", "")
    assert tex.count(r"\\") == len(grid(table).body) + 1
    assert "%" not in tex.replace(r"\%", "").replace("% needs", "")
    rows = [*csv.DictReader(io.StringIO(long_csv(table)))]
    assert len(rows) == 2 * 8
    (sigma,) = (r for r in rows if r["row"].startswith("MobileNetV2") and r["column"] == "sigma")
    assert float(sigma["ours"]) == table.rows[0].entries["sigma"].ours.mean
    assert (sigma["published"], sigma["seeds"], sigma["images"]) == ("0.122", "2", "40")
    assert sigma["split"] == "paper"


def test_the_page_needs_nothing_from_elsewhere(folder) -> None:
    html = tables_page([folder.table(folder.sweep("table4", "seed=0"))])
    assert "http" not in html
    assert not re.findall(r"(?:src=|url\(|@import)", html)
    assert "prefers-color-scheme: dark" in html
    assert '<section id="table4">' in html


def test_the_tables_of_every_row_are_read_once(folder, monkeypatch) -> None:
    overrides = ["experiment=md_mobilenet_v2", "seed=0"]
    sweeps = [folder.sweep(name, *overrides) for name in ("table4", "table5", "table6", "table7")]
    folder.add(sweeps[0].jobs[0])
    read = []
    monkeypatch.setattr(
        "skinlesion.reporting.tables.read_predictions",
        lambda path: read.append(time.time()) or read_predictions(path),
    )
    results = Results(sweeps)
    for sweep in sweeps:
        build_table(sweep, results)
    assert len(read) == 1
