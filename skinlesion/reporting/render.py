"""Tables as text: Markdown and LaTeX for a person, CSV in long form for a program.

A table of one column has its published, audited and own value side by side; a wider one has them
below each other, a block for each row.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from skinlesion.reporting.tables import Entry, Row, Table

MINUS = "\u2212"
OUTSIDE, CONTRADICTED, NOTE = "*", "!", "\u2020"
LEGEND = {
    OUTSIDE: "the published value lies outside our 95 % interval",
    CONTRADICTED: "the authors' own outputs contradict the printed value",
}
INTERVAL = (
    "ours: mean over seeds \u00b1 their standard deviation, and a 95 % interval by resampling "
    "lesions (the images of a test set, not the noise of training); difference: ours minus "
    "published; n: seeds x images"
)


@dataclass(frozen=True)
class Grid:
    """A table laid out: cells of text, and the numbers of the lines that begin a block."""

    head: list[str]
    body: list[list[str]]
    breaks: set[int]


def grid(table: Table) -> Grid:
    """Lay a table out."""
    columns = [(group, heading) for group in table.groups for heading in table.headings]
    return _flat(table) if len(columns) == 1 else _blocks(table, columns)


def _flat(table: Table) -> Grid:
    (heading,) = table.headings
    ours = f"ours, {heading.replace('_', ' ')}"
    head = ["", "published", "audited", ours, "95 % interval", "difference", "n"]
    body = []
    for row in table.rows:
        entry = row.entries[heading]
        parts = [text(entry, row) for text in LINES.values()]
        body.append([_label(row, table), *parts, row.n])
    return Grid(head, body, set(range(len(body))))


def _blocks(table: Table, columns: Sequence[tuple[str, str]]) -> Grid:
    spoken = [(group, heading.replace("_", " ")) for group, heading in columns]
    names = [f"{group}: {heading}" if group else heading for group, heading in spoken]
    many = len(table.groups) > 1
    head = ["", "", *names, "n"]
    body: list[list[str]] = []
    breaks = set()
    for rows in table.lines():
        by_group = {row.group: row for row in rows}
        breaks.add(len(body))
        first = True
        for name, text in LINES.items():
            cells = [
                text(by_group[g].entries[heading], by_group[g]) if g in by_group else ""
                for g, heading in columns
            ]
            if not any(cells):
                continue
            n = "; ".join(row.n for row in rows) if many else rows[0].n
            label = _label(rows[0], table) if first else ""
            body.append([label, name, *cells, n if name == "ours" else ""])
            first = False
    return Grid(head, body, breaks)


def _published(entry: Entry, row: Row) -> str:
    cell = entry.published
    if cell is None or cell.published is None:
        return ""
    return cell.published + (OUTSIDE if entry.outside else "")


def _audited(entry: Entry, row: Row) -> str:
    cell = entry.published
    if cell is None or cell.audited is None:
        return ""
    return _number(cell.audited) + (CONTRADICTED if entry.contradicted else "")


def _own(entry: Entry, row: Row) -> str:
    if entry.ours is None:
        return "not measured" if row.runs else "not run"
    spread = "" if entry.ours.sd is None else f" \u00b1 {_number(entry.ours.sd)}"
    return _number(entry.ours.mean) + spread


def _interval(entry: Entry, row: Row) -> str:
    if entry.ours is None or entry.ours.low is None or entry.ours.high is None:
        return ""
    return f"{_number(entry.ours.low)}-{_number(entry.ours.high)}"


def _difference(entry: Entry, row: Row) -> str:
    if entry.difference is None:
        return ""
    sign = MINUS if entry.difference < 0 else "+"
    return sign + _number(abs(entry.difference))


LINES: dict[str, Callable[[Entry, Row], str]] = {
    "published": _published,
    "audited": _audited,
    "ours": _own,
    "95 % interval": _interval,
    "difference": _difference,
}


def notes(table: Table) -> list[str]:
    """Return what is said below a table: marks, contradictions, rows that are not run."""
    lines = [*table.conditions, INTERVAL]
    entries = [(row, heading, e) for row in table.rows for heading, e in row.entries.items()]
    if any(entry.outside for *_, entry in entries):
        lines.append(f"{OUTSIDE} {LEGEND[OUTSIDE]}")
    wrong = [
        f"{row.label}, {heading}: {entry.published.published} printed, "
        f"{_number(entry.published.audited)} ({entry.published.source})"
        for row, heading, entry in entries
        if entry.contradicted and entry.published and entry.published.audited is not None
    ]
    if wrong:
        lines.append(f"{CONTRADICTED} {LEGEND[CONTRADICTED]}: {'; '.join(wrong)}")
    unknown = [
        f"{row.label}: {entry.published.source}"
        for row, _, entry in entries
        if entry.published and entry.published.audited is None and entry.published.source
    ]
    if unknown:
        lines.append(f"no output of the authors' gives: {'; '.join(dict.fromkeys(unknown))}")
    for row in table.rows:
        lines += [f"{NOTE} {_named(row)}: {note}" for note in row.notes]
    return lines


def missing(table: Table) -> str:
    """Return which rows and seeds are not run, empty if none."""
    said = [
        f"{_named(row)} ({'seeds' if row.missing[1:] else 'seed'} "
        f"{', '.join(map(str, row.missing))})"
        for row in table.rows
        if row.missing
    ]
    return "; ".join(said)


def markdown(table: Table) -> str:
    """Return the table as Markdown."""
    laid = grid(table)
    rule = ["---" if i == 0 else "---:" for i in range(len(laid.head))]
    rows = [laid.head, rule, *laid.body]
    lines = [f"## {table.title}", ""]
    lines += [f"| {' | '.join(_escape_markdown(cell) for cell in row)} |" for row in rows]
    lines += ["", *(f"- {_escape_markdown(note)}" for note in notes(table))]
    if absent := missing(table):
        lines.append(f"- not run: {_escape_markdown(absent)}. This trains what is missing:")
        lines += ["", f"      {table.command}"]
    return "\n".join(lines) + "\n"


def latex(table: Table) -> str:
    """Return the table as LaTeX, for the package booktabs."""
    laid = grid(table)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        f"\\caption{{{_escape_latex(table.title)}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(laid.head) - 1)}}}",
        "\\toprule",
        " & ".join(map(_escape_latex, laid.head)) + " \\\\",
        "\\midrule",
    ]
    wide = len(laid.breaks) < len(laid.body)
    for number, row in enumerate(laid.body):
        if wide and number in laid.breaks and number:
            lines.append("\\addlinespace")
        lines.append(" & ".join(map(_escape_latex, row)) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}", "", "\\footnotesize"]
    lines += [f"{_escape_latex(note)}\\par" for note in notes(table)]
    if absent := missing(table):
        lines.append(f"not run: {_escape_latex(absent)}\\par")
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def long_csv(table: Table) -> str:
    """Return the table as CSV, a line each cell."""
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
        for heading, entry in row.entries.items():
            cell, ours = entry.published, entry.ours
            writer.writerow(
                [
                    *(table.name, row.label, row.group, heading),
                    *((cell.published, cell.audited, cell.source) if cell else ("", "", "")),
                    *((ours.mean, ours.sd, ours.low, ours.high) if ours else ("",) * 4),
                    *(entry.difference, entry.outside if entry.difference is not None else ""),
                    *(len(row.runs), _several(len(run.part.y) for run in row.runs)),
                    _several(run.config.split.name for run in row.runs),
                    _several(run.config.backbone.input_size for run in row.runs),
                    _several(run.weights for run in row.runs),
                    _several(run.digests[0][:8] for run in row.runs),
                    _several(str(run.made_with["commit"])[:7] for run in row.runs),
                    any(run.made_with["dirty"] for run in row.runs) if row.runs else "",
                ]
            )
    return out.getvalue()


def _label(row: Row, table: Table) -> str:
    marked = any(other.notes for other in table.rows if other.label == row.label)
    return row.label + (NOTE if marked else "")


def _named(row: Row) -> str:
    return f"{row.label}, {row.group}" if row.group else row.label


def _number(value: float) -> str:
    """Three decimals for shares, fewer for what is larger."""
    decimals = 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{decimals}f}"


def _several(values: Iterator[object]) -> str:
    return "/".join(sorted({str(value) for value in values}))


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*\\])", r"\\\1", text)


def _escape_latex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text)
    for plain, command in (
        (MINUS, "$-$"),
        ("\u00b1", "$\\pm$"),
        (NOTE, "$\\dagger$"),
        ("\u00b7", "$\\cdot$"),
        (" x ", " $\\times$ "),
    ):
        escaped = escaped.replace(plain, command)
    return escaped
