"""Tables from run directories: published, audited, ours, and what stands beside them."""

import csv
import io
from html import unescape
from itertools import product

import numpy as np
import pytest

from skinlesion.reporting.layout import FORMULA, MINUS, lay_out, long_csv
from skinlesion.reporting.published import Cell
from skinlesion.reporting.render import render
from skinlesion.reporting.results import Ours
from skinlesion.reporting.tables import Entry
from skinlesion.runs.directory import identity
from skinlesion.runs.outcome import Failures
from skinlesion.templates import escape_latex, escape_markdown

MOBILE, RESNET = "experiment=md_mobilenet_v2", "experiment=md_mobilenet_v2,md_resnet50"


def written(ending, table):
    return render(f"table.{ending}", layout=lay_out(table))


def row_of(table, label, group=""):
    (row,) = (row for row in table.rows if (row.label, row.group) == (label, group))
    return row


def test_a_cell_is_the_mean_over_seeds_beside_the_published_and_the_audited(folder):
    sweep = folder.sweep("table4", MOBILE)
    for job, right in zip(sweep.jobs, (0.7, 0.8, 0.9), strict=True):
        folder.add(job, right)
    row = row_of(folder.table(sweep), "MobileNetV2")
    entry = row.entries["accuracy"]
    assert (entry.published.published, entry.published.audited) == ("0.81", pytest.approx(0.8092))
    assert entry.ours.mean == pytest.approx(0.8)
    assert entry.ours.sd == pytest.approx(np.std([0.7, 0.8, 0.9]))
    assert entry.ours.low < 0.8 < entry.ours.high
    assert entry.difference == pytest.approx(-0.01)
    assert (row.n, row.missing) == ("3 x 40", [])


def test_costs_come_from_the_provenance_and_depth_is_not_measured(folder):
    sweep = folder.sweep("table11", "experiment=table9_240", "seed=0")
    folder.add(sweep.jobs[0])
    entries = row_of(folder.table(sweep), "MobileNetV3Large").entries
    assert entries["parameters"].ours == Ours(1.234567, None, None, None)
    assert entries["seconds_per_epoch"].ours == Ours(30.0, None, None, None)
    assert entries["depth"].ours is None
    text = written("md", folder.table(sweep))
    assert "not measured" in text
    assert "not run" not in text


def test_what_is_not_run_says_so_and_names_the_command(folder):
    sweep = folder.sweep("table4", RESNET, "seed=0,1")
    folder.add(sweep.jobs[0])
    (folder.add(sweep.jobs[1]) / "DONE").unlink()  # begun, not done
    Failures(folder.path).record(identity(sweep.jobs[2].config), "out of\nmemory")
    table = folder.table(sweep)
    layout = lay_out(table)
    assert layout.missing == "MobileNetV2 (seed 1); Resnet50 (seeds 0, 1)"
    assert "† Resnet50: seed 0 failed: out of memory" in layout.notes
    assert layout.body[1][0] == "Resnet50†"
    text = written("md", table)
    assert "| Resnet50† | 0.70 | 0.702 | not run |  |  | - |" in text
    command = "python train.py -cd sweeps -cn table4 -m experiment=md_mobilenet_v2,md_resnet50"
    assert table.command == f"{command} seed=0,1"
    assert table.command in text


def test_the_two_protocols_stand_side_by_side_and_the_test_part_is_reported(folder):
    sweep = folder.sweep("leakage", MOBILE, "seed=0")
    by_image, by_lesion = sweep.jobs
    folder.add(by_image, 0.9)
    folder.add(by_lesion, 0.6)
    layout = lay_out(folder.table(sweep))
    assert layout.head[2:5] == [
        *("by image (as published): accuracy", "by image (as published): balanced accuracy"),
        "by image (as published): mean AUC",
    ]
    lines = {line[1]: line for line in layout.body}
    assert (lines["ours"][2], lines["ours"][5]) == ("0.900", "0.600")
    assert (lines["published"][2].rstrip("*"), lines["published"][5]) == ("0.81", "")
    leak = "25 % show a lesion that is also in training"
    assert f"split=paper: val images, which selected the checkpoint; {leak}" in layout.notes
    assert any("split=lesion: test images, which selected nothing" in n for n in layout.notes)


def test_a_published_value_outside_the_interval_is_marked(folder):
    sweep = folder.sweep("table4", RESNET, "seed=0")
    for job, right in zip(sweep.jobs, (0.8, 0.2), strict=True):
        folder.add(job, right)
    layout = lay_out(folder.table(sweep))
    assert [line[1] for line in layout.body] == ["0.81", "0.70*"]
    assert "* the published value lies outside our 95 % interval" in layout.notes


def test_rounding_is_allowed_for():
    for text, outside in (("0.80", False), ("0.70", True), ("0.745", False), ("0.855", True)):
        assert Entry(Cell(text, None, ""), Ours(0.8, None, 0.75, 0.84)).outside is outside
    cases = (("0.90", 0.8750, True), ("0.80", 0.8095, False), ("116", 117, False))
    for text, audited, contradicted in (*cases, ("5.5", 2.67, True)):
        assert Entry(Cell(text, audited, "nb1"), None).contradicted is contradicted


def test_other_data_uncommitted_changes_and_no_weights_are_marked(folder):
    sweep = folder.sweep("table4", f"{RESNET},md_resnet152", "seed=0")
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


def test_seeds_of_other_data_are_not_mixed_into_a_cell(folder):
    sweep = folder.sweep("table4", MOBILE, "seed=0,1,2")
    folder.add(sweep.jobs[0], 0.8)
    folder.add(sweep.jobs[1], 0.9)
    folder.add(sweep.jobs[1], 0.1, key="other", data="f" * 64)
    folder.add(sweep.jobs[2], 0.1, key="other", data="f" * 64, weights="none")
    row = row_of(folder.table(sweep), "MobileNetV2")
    assert row.entries["accuracy"].ours.mean == pytest.approx(0.85)
    assert row.missing == [2]
    assert row.notes[0].startswith("2 further runs of other data or weights are left out: ")


def test_every_format_holds_every_number(folder):
    sweep = folder.sweep("table5", RESNET, "seed=0,1")
    for job in sweep.jobs:
        folder.add(job, 0.7 + 0.1 * job.seed)
    table = folder.table(sweep)
    layout = lay_out(table)
    lines = {line[1]: line for line in layout.body[:5]}
    assert lines["audited"][2 + [*sweep.columns].index("vasc")] == "0.875!"
    (note,) = (note for note in layout.notes if note.startswith("!"))
    assert "MobileNetV2 + Metadata, vasc: 0.9 printed, 0.875 (nb38; the paper copied nv)" in note
    text, tex, html = (
        written("md", table),
        written("tex", table),
        render("tables.html", layouts=[layout]),
    )
    for cell in (cell for line in layout.body for cell in line):
        assert cell.replace("*", r"\*") in text
        assert cell.replace("±", r"$\pm$").replace("%", r"\%").replace(MINUS, "$-$") in tex
        assert cell in html.replace("<wbr>", "")
    assert tex.count(r"\\") == len(layout.body) + 1
    assert "%" not in tex.replace(r"\%", "").replace("% needs", "")
    rows = [*csv.DictReader(io.StringIO(long_csv(table)))]
    assert len(rows) == 2 * 8
    (sigma,) = (r for r in rows if r["row"].startswith("MobileNetV2") and r["column"] == "sigma")
    assert float(sigma["ours"]) == table.rows[0].entries["sigma"].ours.mean
    assert (sigma["published"], sigma["seeds"], sigma["images"]) == ("0.122", "2", "40")
    assert sigma["split"] == "paper"


def test_markdown_makes_of_any_text_nothing_but_that_text():
    renderer = pytest.importorskip("markdown_it").MarkdownIt().enable(["table", "strikethrough"])
    pieces = ("*", "_", "`", "~~", "<b>", "&lt;", "[x](y)", "|", "\\", "#", "1.", "- ", "a", " ")
    for text in (f"x{''.join(words)}x" for words in product(pieces, repeat=3)):
        shown = renderer.render(f"- {escape_markdown(text)}").strip()
        assert unescape(shown.removeprefix("<ul>\n<li>").removesuffix("</li>\n</ul>")) == text


@pytest.mark.parametrize("start", FORMULA)
def test_no_spreadsheet_takes_a_text_for_a_formula(folder, start):
    sweep = folder.sweep("table4", MOBILE, "seed=0")
    folder.add(sweep.jobs[0], commit=f"{start}1+1")
    (row,) = csv.DictReader(io.StringIO(long_csv(folder.table(sweep)), newline=""))
    assert row["commits"] == f"'{' '.join(f'{start}1+1'.splitlines())}"


def test_text_is_escaped_for_its_medium(folder):
    assert escape_latex("a_b\\c~d^e {50 %} <f>") == (
        r"a\_b\textbackslash{}c\textasciitilde{}d\textasciicircum{}e \{50 \%\} "
        r"\textless{}f\textgreater{}"
    )
    sweep = folder.sweep("table4", MOBILE, "seed=0")
    folder.add(sweep.jobs[0], cpu="<script> \\input{x} | \n", commit="=1+1")
    table = folder.table(sweep)
    assert r"hardware: \<script\> \\input{x} \|" in written("md", table)
    assert r"\textless{}script\textgreater{} \textbackslash{}input\{x\} \textbar{}" in written(
        "tex", table
    )
    html = render("tables.html", layouts=[lay_out(table)])
    assert "hardware: &lt;script&gt; \\input{x} |" in html
    assert html.count("<script>") == 1  # the page's own
    assert ",'=1+1," in long_csv(table)


def test_runs_of_other_classes_have_the_numbers_that_they_can_have(folder):
    sweep = folder.sweep("table5", MOBILE, "seed=0")
    run = folder.add(sweep.jobs[0])
    text = (run / "predictions.csv").read_text()
    (run / "predictions.csv").write_text(text.replace("vasc", "angioma"))
    entries = row_of(folder.table(sweep), "MobileNetV2 + Metadata").entries
    assert entries["vasc"].ours is None
    assert entries["nv"].ours is not None
