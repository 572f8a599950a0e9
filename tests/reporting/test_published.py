"""The published and audited cells against the paper's text and the authors' own outputs."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from skinlesion.evaluation import metrics
from skinlesion.reporting.published import PUBLISHED, read_published

CONF = Path(__file__).parents[2] / "conf"
REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
PAPER = REFERENCE / "paper.txt"

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "authors_runs.json").read_text())
RUNS = {run["id"]: run for run in FIXTURE["runs"]}

CELLS = read_published()
CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def rows_of(table):
    """The rows of a table in the order of the file."""
    return tuple(dict.fromkeys(row for number, row, _ in CELLS if number == table))


def remark(cell):
    return cell.source.partition("; ")[2]


def cut(value, decimals):
    return np.floor(np.asarray(value) * 10**decimals + 1e-9) / 10**decimals


# The authors' outputs


def run_behind(cell):
    """The run that `source` begins with, or None: nb45, git 7b9b129, a notebook of Datta et al."""
    found = re.match(r"(?:Datta et al\.'s notebook \()?nb(\d+)|(git \w+)", cell.source)
    return None if found is None else RUNS[found[2] or int(found[1])]


def counts_of(run):
    """What the metrics take of a sample."""
    tp, fp, fn, tn = np.array(list(run["counts"].values())).T
    return SimpleNamespace(tp=tp, fp=fp, fn=fn, tn=tn, support=tp + fn)


def per_class(run, name):
    """F1 or recall of each class, (C,): from counts, or two decimals where none were printed."""
    if "counts" in run:
        return getattr(metrics, name)(counts_of(run))
    return np.array([values[FIXTURE["report_is"].index(name)] for values in run["report"].values()])


def accuracy(run):
    if "counts" in run:
        return counts_of(run).tp.sum() / run["n"]
    return run["accuracy"]


def weighted(metric, run):
    counts = counts_of(run)
    return np.average(metric(counts), weights=counts.support)


def macro_auc(run):
    return metrics.macro(np.array(list(run["auc"].values())))


TABLE_8 = {
    "accuracy": accuracy,
    "balanced_accuracy": lambda run: metrics.ovr_balanced_accuracy(counts_of(run)),
    "precision": lambda run: metrics.macro(metrics.precision(counts_of(run))),
    "f1": lambda run: metrics.macro(metrics.f1(counts_of(run))),
    "sensitivity": lambda run: metrics.macro(metrics.recall(counts_of(run))),
    "specificity": lambda run: metrics.macro(metrics.specificity(counts_of(run))),
    "auc": macro_auc,
}
TABLE_10 = TABLE_8 | {
    "precision": lambda run: weighted(metrics.precision, run),
    "f1": lambda run: weighted(metrics.f1, run),
    "sensitivity": lambda run: weighted(metrics.recall, run),
}
TABLE_11 = {
    "parameters": lambda run: run["parameters"] / 1e6,
    "accuracy": accuracy,
    "seconds_per_epoch": lambda run: run["seconds_per_epoch"],
}


def recomputed(run, table, column):
    if table in (5, 6):
        values = per_class(run, {5: "f1", 6: "recall"}[table])
        return metrics.sd(values) if column == "sigma" else values[CLASSES.index(column)]
    if table == 7:
        return run["auc"][column]
    by_column = {8: TABLE_8, 10: TABLE_10, 11: TABLE_11}.get(table, {"accuracy": accuracy})
    return by_column[column](run)


@pytest.mark.parametrize("table", range(3, 12))
def test_audited_cells_come_out_of_the_runs_that_their_sources_begin_with(table):
    theirs = {
        key: run
        for key, cell in CELLS.items()
        if key[0] == table and cell.audited is not None and (run := run_behind(cell))
    }
    # All but those of Datta et al. without a notebook, and the notebook that was interrupted.
    without_a_run = {3: 2, 5: 16, 6: 16, 7: 21, 9: 1}.get(table, 0)
    known = [key for key in CELLS if key[0] == table and CELLS[key].audited is not None]
    assert len(theirs) == len(known) - without_a_run
    for key, run in theirs.items():
        expected = recomputed(run, table, key[2])
        assert CELLS[key].audited == pytest.approx(expected, abs=5.0001e-5), key


# The paper

TABLE_9_ROWS = {
    "-Layer[:270] + Soft-Attention + Metadata": ["table9_270"],
    "-Layer[:266] + Soft-Attention + Metadata": ["table9_266"],
    "-Layer[:260] + Soft-Attention + Metadata": ["table9_260"],
    "-Layer[:251] + Soft-Attention + Metadata": ["table9_251"],
    "-Layer[:246] + Soft-Attention + Metadata": ["md_mobilenet_v3_large"],
    "-Layer[:246] + Soft-Attention + Dense(512) + Metadata": ["table9_246_dense512"],
    "-Layer[:240] + Soft-Attention + Metadata": ["table9_240"],
    "-Layer[:230] + Soft-Attention + Metadata": ["table9_230", "table9_230_again"],
    "-Layer[:230] + Soft-Attention": ["table9_230_no_metadata"],
    "": ["table9_plain"],
}
COLUMNS = {
    "Accuracy": "accuracy",
    "Balanced Accuracy": "balanced_accuracy",
    "Precision": "precision",
    "F1-score": "f1",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "ROC-AUC-score": "auc",
    "ROC AUC Score": "auc",
    "No. Parameters": "parameters",
    "Depth": "depth",
    "Time Prediction(s/epochs)": "seconds_per_epoch",
}


def printed_tables():
    """The lines of each table, split at tabs: those that stand before its caption."""
    tables, lines = {}, []
    for line in PAPER.read_text(encoding="utf-8").splitlines():
        if "\t" in line:
            lines.append(re.sub(r"</?b>", "", line).split("\t"))
        elif caption := re.match(r"Table (\d+):", line):
            tables[int(caption[1])], lines = lines, []
    return tables


def experiment(label, family=""):
    """The row of "DenseNet201 + Metadata", or of a model's name alone in a family."""
    model, _, kind = label.partition(" + ")
    family = {"Augmented Data": "ad", "Metadata": "md", "": family}[kind]
    backbones = {path.stem.replace("_", ""): path.stem for path in CONF.glob("backbone/**/*.yaml")}
    return f"{family}_{backbones[model.lower()]}"


def column(label):
    return COLUMNS[label.removesuffix("(avg)")]


def printed_cells():
    """((table, row, column), text) of every cell of Tables 3-11, by the names of the project."""
    tables = printed_tables()
    for table, family in ((3, "ad"), (4, "md")):
        lines = tables[table]
        for models, texts in zip(lines[::2], lines[1::2], strict=True):
            for model, text in zip(models, texts, strict=True):
                yield (table, experiment(model, family), "accuracy"), text
    for table in (5, 6, 7):
        head, *lines = tables[table]
        columns = ["sigma" if name == r"$\sigma$" else name for name in head[1:]]
        for label, *texts in lines:
            for name, text in zip(columns, texts, strict=True):
                yield (table, experiment(label), name), text
    for table in (8, 11):
        (_, *models), *lines = tables[table]
        for place, model in enumerate(models, start=1):
            row = experiment(model, "md")
            if table == 11 and row == "md_mobilenet_v3_large":
                row = "table9_240"
            for line in lines:
                yield (table, row, column(line[0])), line[place].removesuffix("M")
    again = {label: iter(rows) for label, rows in TABLE_9_ROWS.items()}
    for label, text in tables[9][1:]:
        yield (9, next(again[label.removeprefix("MobileNetV3Large")]), "accuracy"), text
    for label, text in tables[10]:
        yield (10, "table9_240", column(label)), text


@pytest.mark.skipif(not PAPER.exists(), reason=f"the paper is not at {PAPER}")
def test_every_printed_cell_is_there_as_printed_and_in_its_order():
    printed = list(printed_cells())
    ours = [(key, cell.published) for key, cell in CELLS.items() if cell.published is not None]
    assert sorted(printed) == sorted(ours)
    in_order = sorted(printed, key=lambda cell: cell[0][0])  # stable: within a table as printed
    assert in_order == ours


# What is wrong in it


def test_six_vasc_cells_of_table_5_are_copies_of_nv():
    copied = [key for key, cell in CELLS.items() if remark(cell) == "the paper copied nv"]
    assert [(table, column) for table, _, column in copied] == [(5, "vasc")] * 6
    for table, row, _ in copied:
        vasc, nv = CELLS[table, row, "vasc"], CELLS[table, row, "nv"]
        assert vasc.value == nv.value != round(vasc.audited, 2)


ROWS_OF_ANOTHER = {
    (6, "md_mobilenet_v3_large"),
    (6, "md_nasnet_large"),
    *((7, row) for row in rows_of(7) if row.startswith("ad_")),
}


def test_a_remark_stands_where_the_printed_cell_neither_rounds_nor_cuts_the_audited_one():
    for key, cell in CELLS.items():
        table, row, name = key
        if table in (3, 11) or cell.published is None or cell.audited is None:
            continue
        if (table, row) in ROWS_OF_ANOTHER:
            assert remark(cell).startswith("the paper prints "), key
            continue
        decimals = 3 if name == "sigma" else 2  # trailing zeros are not always printed
        agree = cell.value in (cut(cell.audited, decimals), round(cell.audited, decimals))
        assert agree == (not remark(cell)), key


def test_the_file_holds_each_cell_once_and_numbers_as_digits():
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        lines = [*csv.DictReader(file, strict=True)]
    assert [*lines[0]] == ["table", "row", "column", "published", "audited", "source"]
    assert len(lines) == len(CELLS)
    for line in lines:
        assert (CONF / "experiment" / f"{line['row']}.yaml").is_file()
        assert line["published"] or line["audited"]
        assert line["source"].strip()
        for name in ("published", "audited"):
            assert re.fullmatch(r"(\d+(\.\d+)?)?", line[name], re.ASCII)
