"""A test set that lies elsewhere than what is trained on, its table in one of several forms.

That of ISIC 2018 Task 3 (conf/split/official.yaml; Codella et al. 2019, arXiv:1902.03368) is at
Harvard Dataverse with HAM10000's columns, and at the challenge with a column for each class alone.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from skinlesion.data.archive import ImageArchive
from skinlesion.data.schema import Schema
from skinlesion.data.table import read_table
from skinlesion.errors import SkinlesionError, listing

WAYS = "skinlesion data download --test fetches it; machine.test or ISIC2018_TEST names a copy"

log = logging.getLogger(__name__)


def open_test_set(
    root: Path, data: Any, forms: Sequence[Any], needs_table: bool = True
) -> tuple[ImageArchive, pd.DataFrame, list[str]]:
    """Return a test set's images, its table as of `read_table`, and what is wrong with it.

    `data` is what is trained on, as conf/data/ says it; `forms`, what the set's table may declare
    otherwise: the first that fits counts. What it lacks of the metadata is unknown for every image,
    which is said in a line. Unless a table is needed, images alone are one without classes (`dx`).

    Raises:
        SkinlesionError: what was found and what expected, if there is no such folder or table.
    """
    if not root.is_dir():
        raise SkinlesionError(f"{root}: no such folder, expected a test set. {WAYS}.")
    archive, refused, problems = ImageArchive(root), list[str](), list[str]()
    table = pd.DataFrame({"image_id": sorted(archive.ids)})
    for form in forms:
        try:
            table, problems = read_table(archive, Schema.from_config({**data, **form}))
            break
        except SkinlesionError as error:
            refused.append(f"\n  - {str(error).splitlines()[0]}")
    else:
        why = f"{root} has no table of a test set:{''.join(dict.fromkeys(refused))}\n{WAYS}."
        if needs_table or table.empty:
            raise SkinlesionError(why)
        log.warning("not scored: %s", why)
    known = Schema.from_config(data).untrained
    if lacking := [name for name in known if name not in table]:
        log.warning("%s: no %s, which is unknown for every image", root, listing(lacking))
    unknown = {name: known[name].read(name, None) for name in lacking}
    return archive, table.assign(**unknown), problems


def join_test_set(
    archive: ImageArchive, table: pd.DataFrame, problems: list[str], root: Path, data: Any
) -> pd.DataFrame:
    """Return the table of the test set that `data.test` declares; the archive borrows its images.

    To the problems is added what is wrong with it, and which images are trained on as well.
    """
    images, tested, wrong = open_test_set(root, data, data["test"])
    problems += [f"{root}: {problem}" for problem in wrong]
    if archive.region:
        problems.append(f"data.region={archive.region}, but the test set {root} has no masks")
    if both := sorted({*tested["image_id"]} & {*table["image_id"]}):
        problems.append(f"{root}: images that are also in {archive.root}: {listing(both)}")
    archive.borrow(images, tested["image_id"])
    return tested
