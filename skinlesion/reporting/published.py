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
from dataclasses import dataclass
from pathlib import Path

PUBLISHED = Path(__file__).with_name("published.csv")

Key = tuple[int, str, str]


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


def read_published() -> dict[Key, Cell]:
    """Read the cells by (table, row, column), in the order of the file: that of the print."""
    with PUBLISHED.open(newline="", encoding="utf-8") as file:
        return {
            (int(line["table"]), line["row"], line["column"]): Cell(
                line["published"] or None,
                float(line["audited"]) if line["audited"] else None,
                line["source"],
            )
            for line in csv.DictReader(file)
        }
