"""From a table to the `conf/data/<name>.yaml` that says what it is made of.

A proposal, to be read and corrected by whoever knows the data: which columns are of use, what a
number can be, in which order the classes stand.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from omegaconf import OmegaConf

from skinlesion.cli import CONF
from skinlesion.data.encoding import UNKNOWN, matching
from skinlesion.data.schema import TAKEN, Schema
from skinlesion.data.table import ENDINGS, join_tables, known_lesions, read_cells
from skinlesion.errors import SkinlesionError, listing
from skinlesion.templates import environment

MOST_VALUES = 50  # of a property, and no more than half the images
FEWEST_NUMBERS = 7  # distinct ones; fewer are rather the names of categories
PLAIN = re.compile(r"[A-Za-z_][\w /-]*", re.ASCII)
NOT_TEXT = ("yes", "no", "y", "n", "true", "false", "on", "off", "null", "nan", "inf")  # to YAML


def describe_tables(
    paths: Sequence[Path],
    image: str,
    label: str | None = None,
    one_hot: Sequence[str] = (),
    lesion: str | None = None,
) -> str:
    """Return a config of data, as YAML with comments.

    The tables lie in one folder and are joined by the column `image` of the images' names. The
    class is a column `label`, or has one for each (`one_hot`). A SkinlesionError if a table cannot
    be read, or a column is not there.
    """
    roots = {path.parent for path in paths}
    if len(roots) > 1:
        raise SkinlesionError(f"{listing(paths)}: expected tables in one folder, machine.data.")
    chosen = [image, *([label] if label else one_hot), *([lesion] if lesion else [])]
    folded = {name.casefold() for name in chosen}
    every = dict.fromkeys(str(name) for path in paths for name in read_cells(path))
    others = [name for name in every if name.casefold() not in folded]
    cells, _, problems = join_tables(paths, image, [*chosen, *others])
    if cells.empty:
        raise SkinlesionError(f"{listing(paths)}: {'; '.join(problems) or 'no rows'}.")
    if label and (without := int(cells[label].isna().sum())):
        problems.append(f"{without:,} images without {label}")
    lesions = known_lesions(cells[lesion]) if lesion else pd.Series()
    properties, left_out = _properties(cells[others])
    templates = environment(Path(__file__).with_name("templates"), "txt")
    templates.finalize = _as_yaml
    templates.filters["comment"] = lambda text: Markup(" ".join(str(text).split()))
    templates.filters["count"] = lambda number: Markup(f"{number:,}")
    return templates.get_template("data.yaml.jinja").render(
        images=int(cells[image].nunique()),
        files=listing([path.name for path in paths]),
        problems=problems,
        root=str(roots.pop()),
        tables=[path.stem if path.suffix in ENDINGS else path.name for path in paths],
        classes=_classes(cells, label, one_hot),
        image=image,
        lesion=lesion,
        lesions=lesions.nunique(),
        no_lesion=int(lesions.isna().sum()),
        label=label,
        properties=properties,
        left_out=left_out,
    )


def named_elsewhere(names: Iterable[str], wanted: Iterable[str]) -> str:
    """Return a sentence on names that another of conf/data/ declares, to end an error with."""
    unasked = [*dict.fromkeys(name for name in names if name not in set(wanted))]
    for path in sorted((CONF / "data").glob("*.yaml")):
        try:
            schema = Schema.from_config(OmegaConf.select(OmegaConf.load(path), "data"))
        except SkinlesionError:  # one that adds to another
            continue
        if known := [name for name in unasked if name in (*schema.tables, *schema.wanted)]:
            return f" data={path.stem} reads {listing(known, 12)}."
    return ""


def _classes(cells: pd.DataFrame, label: str | None, one_hot: Sequence[str]) -> dict[str, int]:
    """Return the images of each class."""
    if label is None:
        marks = cells[[*one_hot]].apply(pd.to_numeric, errors="coerce").eq(1)
        counts = {name: int(count) for name, count in marks.sum().items()}
    else:
        labels = cells[label].dropna()
        numbers = pd.to_numeric(labels, errors="coerce").astype(object)
        meant = numbers.fillna(labels.str.casefold())  # 1 and 1.0 are one class
        found = [(min(alike), len(alike)) for _, alike in labels.groupby(meant, sort=False)]
        counts = dict(sorted(found, key=lambda each: each[0].casefold()))
    if len(counts) < 2:
        raise SkinlesionError(
            f"{f'--label {label}' if label else '--one-hot'}: {len(counts)} classes "
            f"({listing([*counts]) or 'nothing'}); expected at least 2."
        )
    return counts


def _properties(cells: pd.DataFrame) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return what each column can be as metadata, for the template, and why others cannot."""
    properties: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    for column in map(str, cells):
        plain = re.sub(r"\W+", "_", column.lower(), flags=re.ASCII).strip("_")
        name = column if column.isidentifier() else plain
        declared = _declared(cells[column])
        if isinstance(declared, str):
            left_out[column] = declared
        elif not name or name in (*TAKEN, *(known["name"] for known in properties)):
            left_out[column] = "its name is taken; as `other: {column: …, …}`"
        else:
            missing = int(cells[column].isna().sum())
            properties.append({"name": name, "column": column, "missing": missing} | declared)
    return properties, left_out


def _declared(column: pd.Series) -> dict[str, Any] | str:
    """Return what a column declares, a range or values, or why it is no property."""
    texts = column.dropna()
    distinct = sorted(texts.unique())
    if len(distinct) < 2:
        return "the same in every row" if distinct else "empty"
    numbers = pd.to_numeric(texts, errors="coerce").astype(float)
    if numbers.notna().all() and numbers.abs().max() < float("inf"):
        if numbers.nunique() >= FEWEST_NUMBERS:
            ends = [float(numbers.min()), float(numbers.max())]
            return {"range": [int(end) if end.is_integer() else end for end in ends]}
        distinct.sort(key=float)
    if len(distinct) > min(MOST_VALUES, len(texts) / 2):  # names of single images, or notes
        return f"{len(distinct):,} different values, such as {listing(distinct, 3)}"
    values: list[str] = []
    for text in distinct:
        if not matching(text, [*values, UNKNOWN]):
            values.append(text)
    return {"range": None, "values": [*values, UNKNOWN]}


def _as_yaml(value: Any) -> str:
    """Return what is put into the template as YAML and OmegaConf read it as itself."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, list | tuple):
        return ", ".join(map(_as_yaml, value))
    if not isinstance(value, str):
        return str(value)
    plain = PLAIN.fullmatch(value) and value.lower() not in NOT_TEXT and value == value.strip()
    return value if plain else json.dumps(value.replace("${", "\\${"), ensure_ascii=False)
