"""One HTML page that needs nothing else: tables of sweeps, or a whole report.

Template, style and script are the files of `page/`. Whatever comes from a run or a sweep passes
through :func:`markup.tag`, which escapes it.
"""

import html
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from string import Template
from urllib.parse import quote

from skinlesion.reporting.markup import (
    Html,
    Key,
    Line,
    breakable,
    data_keys,
    definitions,
    join,
    scrolling,
    sortable,
    tag,
)
from skinlesion.reporting.render import (
    CONTRADICTED,
    LINES,
    OUTSIDE,
    Grid,
    grid,
    missing,
    notes,
)
from skinlesion.reporting.report import Report
from skinlesion.reporting.run_sections import all_runs, commit_of, leakage, pictures_of, run_article
from skinlesion.reporting.tables import Entry, Row, Table

FILES = Path(__file__).with_name("page")
PAPER = "Balanced and Optimized Skin Cancer Classification Model using Soft Attention and Metadata"
LIMITS = (
    "Research software, and no medical device: nothing here may guide a diagnosis.",
    "HAM10000 holds dermoscopic images of seven kinds of lesion from two sites, in Austria and "
    "Australia; the colour of the skin is not recorded. How a network does on other cameras, "
    "people or lesions is not measured.",
    "By image, as published: several photographs of a lesion lie on both sides of the split, and "
    "the held-out images also selected the checkpoint. Such numbers are too high for new "
    "patients. By lesion, no lesion is in two parts, and the test images selected nothing. The two "
    "protocols are not to be compared as if they were one.",
    "A 95 % interval comes from resampling the held-out lesions. It says how much the choice of "
    "those lesions matters for the network as it was trained, and nothing about the noise of "
    "training.",
    "One seed is one seed: only the standard deviation over several says what training again would "
    "give. Many numbers stand here side by side; none is corrected for that.",
)


def tables_page(tables: Sequence[Table]) -> str:
    """Return one page of tables."""
    return _document(
        "skinlesion: tables",
        tag("h1", "Published, audited, ours"),
        tag("p", _ABOUT_CELLS, " Research software, no medical device."),
        _contents([(table.name, table.title) for table in tables]),
        *map(_table_section, tables),
    )


def report_page(report: Report) -> str:
    """Return a whole report as one page, pictures included."""
    sections = [("limits", "Limits"), ("all-runs", "All runs")]
    sections += [(table.name, table.title) for table in report.tables]
    sections += [("leakage-of-the-splits", "Leakage of the splits"), ("each-run", "Each run")]
    pictures = pictures_of(report.runs)
    return _document(
        "skinlesion: report",
        _head(report),
        _contents(sections),
        _section("limits", "Limits", tag("ul", *(tag("li", x) for x in LIMITS), class_="limits")),
        _section("all-runs", "All runs", *all_runs(report)),
        *(map(_table_section, report.tables) if report.tables else [_no_tables()]),
        _section("leakage-of-the-splits", "Leakage of the splits", *leakage(report.runs)),
        _section("each-run", "Each run", *(run_article(shown, pictures) for shown in report.runs)),
        _dialog() if pictures else "",
    )


# The page and its head

_ABOUT_CELLS = (
    "Each cell of the paper's tables beside what its authors' own outputs say and what these runs "
    "gave."
)


def _document(title: str, *body: str) -> str:
    read = {
        name: (FILES / name).read_text("utf-8") for name in ("page.html", "page.css", "page.js")
    }
    return Template(read["page.html"]).substitute(
        title=html.escape(title),
        style=read["page.css"].strip(),
        script=read["page.js"].strip(),
        body=join(body, "\n"),
    )


def _no_tables() -> Html:
    return tag(
        "p",
        "None of these runs is of a sweep as it was asked for, so no table is shown: what a sweep "
        "was started with (budget=cpu, seed=0, …) is part of what its runs are, and is said to "
        "the report too.",
    )


def _dialog() -> Html:
    """Return the box in which the script enlarges a picture."""
    return tag(
        "dialog",
        tag("form", tag("span"), tag("button", "Close"), method="dialog"),
        tag("img", alt=""),
        aria_label="Enlarged figure",
    )


def _contents(sections: Sequence[tuple[str, str]]) -> Html:
    links = [tag("li", tag("a", text, href=f"#{quote(name)}")) for name, text in sections]
    return tag("nav", tag("ul", *links), aria_label="Contents")


def _section(name: str, title: str, *content: str) -> Html:
    return tag("section", tag("h2", title), "\n", *content, id=name)


def _head(report: Report) -> Html:
    runs = [shown.run for shown in report.runs]
    protocols = Counter(shown.protocol for shown in report.runs)
    seeds = sorted({int(run.config.seed) for run in runs})
    commits = dict.fromkeys(commit_of(run.made_with) for run in runs)
    facts = {
        "written": f"{report.written:%-d %B %Y, %H:%M} UTC",
        "runs": f"{len(runs)}: {', '.join(f'{n} {name}' for name, n in protocols.items())}",
        "seeds": ", ".join(map(str, seeds)),
        "backbones": ", ".join(dict.fromkeys(str(run.config.backbone.name) for run in runs)),
        "code of the runs": f"commit {', '.join(commits)}",
        "data": "digest " + ", ".join(dict.fromkeys(run.digests[0][:8] for run in runs)),
    }
    return tag(
        "header",
        tag("h1", "Skin lesion classifiers: report of the runs"),
        tag(
            "p",
            "Runs that reproduce, and stress-test, the paper ",
            tag("cite", PAPER),
            " (Hoang Khoi Do, 2022), whose networks tell seven kinds of skin lesion apart from a "
            "dermoscopic image of ",
            tag("a", "HAM10000", href="https://doi.org/10.7910/DVN/DBW86T"),
            " and the patient's age, sex and site. The tables set each published cell beside what "
            "its authors' own outputs say and what these runs gave.",
        ),
        definitions(facts),
    )


# Tables of sweeps


def _table_section(table: Table) -> Html:
    laid = grid(table)
    wide = laid.head[1] == ""
    said = [tag("li", note) for note in notes(table)]
    if absent := missing(table):
        what = f"not run: {absent}. This trains what is missing: "
        said.append(tag("li", what, tag("code", table.command)))
    layout = _blocks(table, laid) if wide else _flat(table, laid)
    return _section(table.name, table.title, layout, tag("ul", *said, class_="notes"))


def _flat(table: Table, laid: Grid) -> Html:
    (heading,) = table.headings
    own = [*LINES].index("ours")
    lines = []
    for row, (label, *cells) in zip(table.rows, laid.body, strict=True):
        drawn = [_cell(cell, "own" if i == own else "") for i, cell in enumerate(cells)]
        keys = [row.label, *_values(row.entries[heading]).values(), float(_images(row)) or None]
        lines.append(Line([tag("th", breakable(label), scope="row", class_="label"), *drawn], keys))
    return sortable(table.title, ["row", *laid.head[1:]], 1, lines, kind="sortable flat")


def _blocks(table: Table, laid: Grid) -> Html:
    columns = [(group, heading) for group in table.groups for heading in table.headings]
    # Blocks are sorted by our value; where a column has none at all, by the published one.
    measured = {
        (row.group, heading)
        for row in table.rows
        for heading, entry in row.entries.items()
        if entry.ours is not None
    }
    starts = [*sorted(laid.breaks), len(laid.body)]
    # Where a group of columns begins, and the n beside them.
    begins = range(0, len(columns) + 1, len(table.headings)) if table.groups[1:] else ()
    bodies = []
    for rows, (start, end) in zip(table.lines(), pairwise(starts), strict=True):
        by_group = {row.group: row for row in rows}
        keys: list[Key] = [rows[0].label, None]
        for group, heading in columns:
            entry = by_group[group].entries[heading] if group in by_group else Entry(None, None)
            kind = "ours" if (group, heading) in measured else "published"
            keys.append(_values(entry)[kind])
        keys.append(float(sum(map(_images, rows))) or None)
        lines = []
        for i, (label, kind, *cells) in enumerate(laid.body[start:end]):
            name = tag(
                "th", breakable(label), scope="rowgroup", rowspan=end - start, class_="label"
            )
            own = kind == "ours"
            lines.append(
                tag(
                    "tr",
                    name if i == 0 else None,
                    tag("td", kind, class_="line"),
                    *(_cell(cell, "start" if j in begins else "") for j, cell in enumerate(cells)),
                    class_="ours" if own else None,
                )
            )
        bodies.append(tag("tbody", join(lines, "\n"), data_keys=data_keys(keys), class_="block"))
    head = _block_head(table, len(columns))
    return scrolling(table.title, head, join(bodies, "\n"), kind="sortable blocks")


def _block_head(table: Table, columns: int) -> Html:
    """Lay out the headings, those of groups in a line above."""
    spoken = [heading.replace("_", " ") for heading in table.headings]
    several = len(table.groups) > 1
    span, start = (2, "start") if several else (None, None)
    names = [
        tag(
            "th",
            name,
            scope="col",
            data_column=i + 2,
            class_=start if i % len(spoken) == 0 else None,
        )
        for i, name in enumerate(spoken * len(table.groups))
    ]
    first = tag("th", "row", scope="col", rowspan=span, data_column=0, class_="word")
    kind = tag("th", "line", scope="col", rowspan=span, class_="word")
    n = tag("th", "n", scope="col", rowspan=span, data_column=columns + 2, class_=start)
    if not several:
        return tag("thead", tag("tr", first, kind, *names, n))
    groups = [
        tag("th", group, scope="colgroup", colspan=len(spoken), class_=start)
        for group in table.groups
    ]
    return tag("thead", tag("tr", first, kind, *groups, n), tag("tr", *names))


def _values(entry: Entry) -> dict[str, float | None]:
    """Return the number of each line of LINES, None for none."""
    cell, ours = entry.published, entry.ours
    values = {
        "published": cell.value if cell else None,
        "audited": cell.audited if cell else None,
        "ours": ours.mean if ours else None,
        "95 % interval": ours.low if ours else None,
        "difference": entry.difference,
    }
    return {name: values[name] for name in LINES}


def _images(row: Row) -> int:
    return sum(len(run.part.y) for run in row.runs)


def _cell(text: str, kind: str = "") -> Html:
    if text in ("not run", "not measured") or (text and not text.strip("-; ")):
        kind += " absent"
    elif text.endswith((OUTSIDE, CONTRADICTED)):
        kind += " marked"
    return tag("td", text, class_=kind.strip() or None)
