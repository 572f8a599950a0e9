"""The printed cells of Tables 3-11 beside what the authors' own outputs say: published.csv.

One line per cell: `table` is its number, `row` the experiment of that name (conf/experiment), so
Tables 8 and 11, whose columns are models, are turned round; `column` is a class, sigma or a metric.
`published` is the text as printed (the paper drops some trailing zeros: 0.7, 1), empty for two rows
of Table 9 that the authors ran and did not print by that name. `audited` is what the outputs give,
to four decimals where they go that far; empty where no output of a cell is known. `source` names
the notebook (nb45 is number 45 of KhoiDOO/Skin-Disease-Detection-HAM100000), the commit or the work
of Datta et al. (arXiv:2105.03358) behind the audited value, and after "; " what is wrong with the
printed one.

Parameters are in millions, depth in layers, seconds per epoch those of training; all else lies in
[0, 1].
"""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from skinlesion.errors import SkinlesionError

PUBLISHED = Path(__file__).with_name("published.csv")
HEADER = ["table", "row", "column", "published", "audited", "source"]

Key = tuple[int, str, str]

_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class Cell:
    """A cell of a table: `published` as printed, `audited` from the outputs, None for neither."""

    published: str | None
    audited: float | None
    source: str

    @property
    def value(self) -> float | None:
        """The published value as a number."""
        return None if self.published is None else float(self.published)

    @property
    def tolerance(self) -> float | None:
        """Half a unit of the last digit printed: how far from a rounded value the true one may lie.

        Some of the paper's cells are cut, not rounded, and lie up to twice as far off; where
        trailing zeros were dropped (1 for 1.00) it is wider than what was measured.
        """
        if self.published is None:
            return None
        decimals = len(self.published.partition(".")[2])
        return float(f"5e-{decimals + 1}")


def read_published(path: str | Path = PUBLISHED) -> dict[Key, Cell]:
    """Read the cells by (table, row, column), in the order of the file: that of the print.

    Raises SkinlesionError if the file is missing or no CSV in UTF-8, has other columns or no cells,
    a field is missing, a number is none, or a cell comes twice.
    """
    cells: dict[Key, Cell] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if header != HEADER:
                raise SkinlesionError(
                    f"{path}: the columns are {', '.join(header) or 'none'}; "
                    f"expected {', '.join(HEADER)}"
                )
            for fields in lines:
                key, cell = _cell(fields, where=f"{path}, line {lines.line_num}")
                if key in cells:
                    raise SkinlesionError(
                        f"{path}, line {lines.line_num}: a second cell for table {key[0]}, row "
                        f"{key[1]}, column {key[2]}; expected one"
                    )
                cells[key] = cell
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SkinlesionError(f"{path} cannot be read as published cells: {error}") from error
    if not cells:
        raise SkinlesionError(f"{path} has no cells; expected one a line")
    return cells


def _cell(fields: list[str], where: str) -> tuple[Key, Cell]:
    if len(fields) != len(HEADER):
        raise SkinlesionError(f"{where}: {len(fields)} fields; expected {len(HEADER)}")
    named = dict(zip(HEADER, fields, strict=True))
    for name in ("row", "column", "source"):
        if not named[name].strip():
            raise SkinlesionError(f"{where}: {name} is empty")
    if not re.fullmatch(r"[0-9]+", named["table"]):
        raise SkinlesionError(f"{where}: table is '{named['table']}'; expected its number")
    for name in ("published", "audited"):
        if named[name] and not _NUMBER.fullmatch(named[name]):
            raise SkinlesionError(
                f"{where}: {name} is '{named[name]}'; expected digits as in 0.80, or nothing"
            )
    if not (named["published"] or named["audited"]):
        raise SkinlesionError(f"{where}: neither published nor audited; expected one at least")
    audited = float(named["audited"]) if named["audited"] else None
    return (
        (int(named["table"]), named["row"], named["column"]),
        Cell(named["published"] or None, audited, named["source"]),
    )
