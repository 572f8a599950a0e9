"""Tables laid out as text, for Markdown, LaTeX and HTML; CSV in long form for a program.

A table of one column has its published, audited and own value side by side; a wider one has them
below each other, a block for each row.
"""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass

from skinlesion.reporting.render import render
from skinlesion.reporting.tables import Entry, Row, Table
from skinlesion.text import interval, number

MINUS = "\u2212"
# The marks are explained by templates/notes.txt.
OUTSIDE, CONTRADICTED, NOTE = "*", "!", "\u2020"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # with what a spreadsheet begins to compute
LINES = ("published", "audited", "ours", "95 % interval", "difference")

Key = float | str | None


@dataclass(frozen=True)
class Block:
    """Lines of cells that stay together when a table is sorted; a key a column, None is last."""

    lines: list[list[str]]
    keys: list[Key]


@dataclass(frozen=True)
class Layout:
    """A table laid out; `wide`: published, audited and own values stand below each other.

    `missing` names the rows and seeds that are not run, empty if none.
    """

    table: Table
    head: list[str]
    blocks: list[Block]
    wide: bool
    notes: list[str]
    missing: str

    @property
    def body(self) -> list[list[str]]:
        """Every line."""
        return [line for block in self.blocks for line in block.lines]


def lay_out(table: Table) -> Layout:
    """Lay a table out."""
    columns = [(group, heading) for group in table.groups for heading in table.headings]
    spoken = [heading.replace("_", " ") for _, heading in columns]
    wide = len(columns) > 1
    head = ["published", "audited", f"ours, {spoken[0]}", "95 % interval", "difference"]
    if wide:
        named = zip(columns, spoken, strict=True)
        head = ["", *(f"{group}: {name}" if group else name for (group, _), name in named)]
    # Blocks are sorted by our value; where a column has none at all, by the published one.
    measured = {(r.group, h) for r in table.rows for h, e in r.entries.items() if e.ours}
    blocks = []
    for rows in table.lines() if wide else ([row] for row in table.rows):
        by_group = {row.group: row for row in rows}
        cells = [
            _cells(by_group[group].entries[heading], by_group[group])
            if group in by_group
            else dict.fromkeys(LINES, ("", None))
            for group, heading in columns
        ]
        marked = any(row.notes for row in table.rows if row.label == rows[0].label)
        label, n = rows[0].label + NOTE * marked, "; ".join(row.n for row in rows)
        lines: list[list[str]] = []
        if wide:
            for name in LINES:
                texts = [cell[name][0] for cell in cells]
                if any(texts):
                    start = ["" if lines else label, name]
                    lines.append([*start, *texts, n if name == "ours" else ""])
            sorted_by = ("ours" if column in measured else "published" for column in columns)
            keys = [cell[name][1] for cell, name in zip(cells, sorted_by, strict=True)]
            keys.insert(0, None)
        else:
            lines.append([label, *(text for text, _ in cells[0].values()), n])
            keys = [key for _, key in cells[0].values()]
        images = sum(row.images for row in rows) or None
        blocks.append(Block(lines, [rows[0].label, *keys, images]))
    notes = render("notes.txt", table=table).splitlines()
    missing = [
        f"{row.name} ({'seeds' if row.missing[1:] else 'seed'} {', '.join(map(str, row.missing))})"
        for row in table.rows
        if row.missing
    ]
    return Layout(table, ["", *head, "n"], blocks, wide, notes, "; ".join(missing))


def long_csv(table: Table) -> str:
    """Return the table as CSV, a line each cell, which no spreadsheet takes for a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            *("table", "row", "group", "column", "published", "audited", "source"),
            *("ours", "sd", "low", "high", "difference", "outside", "seeds", "images"),
            *("split", "input_size", "weights", "data", "commits", "dirty"),
        ]
    )
    for row in table.rows:
        runs = row.runs
        for heading, entry in row.entries.items():
            cell, ours = entry.published, entry.ours
            values = [
                *(table.name, row.label, row.group, heading),
                *((cell.published, cell.audited, cell.source) if cell else ("", "", "")),
                *((ours.mean, ours.sd, ours.low, ours.high) if ours else ("",) * 4),
                *(entry.difference, entry.outside if entry.difference is not None else ""),
                *(len(runs), _several(len(run.part.y) for run in runs)),
                _several(run.config.split for run in runs),
                _several(run.config.input_size for run in runs),
                _several(run.weights for run in runs),
                _several(run.data for run in runs),
                _several(run.commit for run in runs),
                any(run.provenance.dirty for run in runs) if runs else "",
            ]
            writer.writerow(map(_harmless, values))
    return out.getvalue()


def _cells(entry: Entry, row: Row) -> dict[str, tuple[str, float | None]]:
    """Return the text of each line, and the number that it is sorted by."""
    cell, ours, difference = entry.published, entry.ours, entry.difference
    found: dict[str, tuple[str, float | None]] = dict.fromkeys(LINES, ("", None))
    found["ours"] = ("not measured" if row.runs else "not run", None)
    if cell and cell.published is not None:
        found["published"] = cell.published + OUTSIDE * entry.outside, cell.value
    if cell and cell.audited is not None:
        found["audited"] = number(cell.audited) + CONTRADICTED * entry.contradicted, cell.audited
    if ours:
        spread = "" if ours.sd is None else f" \u00b1 {number(ours.sd)}"
        found["ours"] = number(ours.mean) + spread, ours.mean
    if ours and ours.low is not None and ours.high is not None:
        found["95 % interval"] = interval((ours.low, ours.high)), ours.low
    if difference is not None:
        found["difference"] = number(difference, "+").replace("-", MINUS), difference
    return found


def _several(values: Iterable[object]) -> str:
    return "/".join(sorted({str(value) for value in values}))


def _harmless(value: object) -> object:
    if not isinstance(value, str):
        return value
    line = " ".join(value.splitlines())
    return f"'{line}" if value.startswith(FORMULA) else line
