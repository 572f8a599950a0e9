"""From a table to the `conf/data/<name>.yaml` that says what it is made of.

A proposal, to be read and corrected by whoever knows the data: which columns are of use, what a
number can be, in which order the classes stand.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from skinlesion.data.schema import TAKEN, UNKNOWN, matching
from skinlesion.data.table import ENDINGS, join_tables, read_cells
from skinlesion.errors import SkinlesionError, listing

MOST_VALUES = 50  # of a category, and no more than half the images
FEWEST_NUMBERS = 7  # distinct ones; fewer are rather the names of categories
WIDTH = 96  # of a line
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

    Args:
        paths: of the tables, in one folder; several are joined by the image column.
        image: column of the images' names.
        label: column of the class.
        one_hot: columns of the classes, where there is no such column.
        lesion: column of the lesions, if there is one.

    Raises:
        SkinlesionError: if a table cannot be read, or a column is not there.
    """
    roots = {path.parent for path in paths}
    if len(roots) > 1:
        raise SkinlesionError(
            f"{', '.join(map(str, paths))}: expected tables in one folder, data.root."
        )
    every = list(dict.fromkeys(name for path in paths for name in read_cells(path).columns))
    chosen = [image, *([label] if label else one_hot), *([lesion] if lesion else [])]
    cells, problems = join_tables(paths, image, [*chosen, *(n for n in every if n not in chosen)])
    images = int(cells[image].nunique())
    lines = [f"# {images:,} images in {listing([path.name for path in paths])}."]
    if label and (without := int(cells[label].isna().sum())):
        problems.append(f"{without:,} images without {label}")
    lines += [f"# To be mended: {problem}" for problem in problems]
    lines += [
        f"root: {_text(str(roots.pop()))} # the tables, and the images in it or in its folders",
        "cache: ${oc.env:SKINLESION_CACHE,data/cache} # decoded images, shared by all runs",
        "limit: null # about this many images only, whole lesions, every class",
        "workers: null # loader processes; null: none without augmentation, else one a core",
        "resident: auto # all images on the device: true | false; auto: on a GPU with room",
        "demo: null",
        f"tables: [{', '.join(_text(_stem(path)) for path in paths)}]",
        "classes: # in this order everywhere; the images of each",
        *_classes(cells, label, one_hot),
        "columns:",
        f"  image: {_text(image)}",
        *_lesion(cells, lesion),
        f"  label: {_text(label) if label else 'null # each class is a column'}",
    ]
    return "\n".join([*lines, *_properties(cells.drop(columns=[*chosen, "_tables"]))]) + "\n"


def _properties(cells: pd.DataFrame) -> list[str]:
    properties, left_out = [], []
    taken = [*TAKEN]
    for column in map(str, cells):
        name = column if column.isidentifier() else _plain_name(column)
        declared, why = _property(cells[column])
        if declared is None:
            left_out.append(f"#  {column}: {why}")
        elif not name or name in taken:
            left_out.append(f"#  {column}: its name is taken; as `other: {{column: …, …}}`")
        else:
            taken.append(name)
            other = [] if name == column else [f"    column: {_text(column)}"]
            properties += [f"  {_text(name)}:{why}", *other, *declared]
    if properties:
        head = "properties: # the metadata; take out what is none"
    else:
        head = "properties: {} # no metadata: train with metadata=none"
    return [head, *properties, *(["# Left out:", *left_out] if left_out else [])]


def _classes(cells: pd.DataFrame, label: str | None, one_hot: Sequence[str]) -> list[str]:
    if label is None:
        marks = cells[list(one_hot)].apply(pd.to_numeric, errors="coerce").eq(1).sum()
        counts = {name: int(marks[name]) for name in one_hot}
    else:
        labels = cells[label].dropna()
        names = {text.casefold(): text for text in sorted(labels.unique(), reverse=True)}
        folded = labels.str.casefold().value_counts().sort_index()
        counts = {names[str(key)]: int(count) for key, count in folded.items()}
    if not 2 <= len(counts) <= MOST_VALUES:
        raise SkinlesionError(
            f"{f'--label {label}' if label else '--one-hot'}: {len(counts):,} classes "
            f"({listing([*counts], 3) or 'nothing'}); expected 2 to {MOST_VALUES}."
        )
    return [f"  - {_text(name)} # {count:,}" for name, count in counts.items()]


def _lesion(cells: pd.DataFrame, lesion: str | None) -> list[str]:
    if lesion is None:
        return ["  lesion: null # every image is a lesion of its own"]
    lines = [f"  lesion: {_text(lesion)} # {cells[lesion].nunique():,} lesions"]
    if missing := int(cells[lesion].isna().sum()):
        lines.append(f"  lesion_missing: own # {missing:,} images: a lesion of its own each")
    return lines


def _property(column: pd.Series) -> tuple[list[str] | None, str]:
    """Return the lines that declare a column, and a comment; or None, and why not."""
    values = column.dropna()
    distinct = sorted(values.unique())
    blank = len(column) - len(values)
    missing = f"{blank:,} missing" if blank else ""
    if len(distinct) < 2:
        return None, "the same in every row" if distinct else "empty"
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.notna().all() and numbers.abs().max() < float("inf"):
        if numbers.nunique() >= FEWEST_NUMBERS:
            comment = ", ".join(filter(None, ("found; widen it to what can be", missing)))
            return [
                f"    range: [{_number(numbers.min())}, {_number(numbers.max())}] # {comment}"
            ], ""
        distinct.sort(key=float)
    folded = {text.casefold(): text for text in distinct if not matching(text, [UNKNOWN])}
    if len(folded) > min(MOST_VALUES, len(values) / 2):  # names of single images, or notes
        return None, f"{len(distinct):,} different values, such as {listing(distinct, 3)}"
    listed = _wrapped([*folded.values(), UNKNOWN])
    return listed, f" # {missing}" if missing else ""


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _wrapped(values: Sequence[str]) -> list[str]:
    lines, line = [], "    values: ["
    for i, value in enumerate(values):
        item = _text(value) + ("]" if i == len(values) - 1 else ",")
        if len(line) + len(item) > WIDTH and i:
            lines.append(line.rstrip())
            line = "      "
        line += f"{item} "
    return [*lines, line.rstrip()]


def _text(text: str) -> str:
    """Return a text as YAML reads it as text."""
    plain = PLAIN.fullmatch(text) and text.lower() not in NOT_TEXT and text == text.strip()
    return text if plain else json.dumps(text, ensure_ascii=False)


def _plain_name(column: str) -> str:
    return re.sub(r"\W+", "_", column.lower(), flags=re.ASCII).strip("_")


def _stem(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if path.suffix in ENDINGS else path.name
