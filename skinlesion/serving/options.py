"""A model, images and their metadata on a command line: what several commands take."""

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.cli import quick_imports
from skinlesion.errors import SkinlesionError, listing

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    from skinlesion.serving.model import LesionModel

SHORT = ("age", "sex", "localization")
NAME_COLUMNS = ("image", "image_id", "file", "filename")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add which model, and where it runs."""
    parser.add_argument(
        "model", metavar="RUN_OR_FILE", help="a run directory, or an exported .safetensors"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add which images, and what is known of them."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEG, PNG or WebP files, or folders"
    )
    parser.add_argument("--age", help="of the patient, in years")
    parser.add_argument("--sex", help="female, male or unknown")
    parser.add_argument("--localization", help="on the body, such as back or 'lower extremity'")
    parser.add_argument(
        *("--set", "-s"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other property of a model of your own data; may be repeated",
    )
    parser.add_argument(
        "--csv",
        metavar="FILE",
        help="metadata of each image: a column image (or image_id, file, filename), with or "
        "without ending, and one for each property; blank is unknown",
    )


def open_all(
    options: argparse.Namespace,
) -> tuple["LesionModel", list[Path], list[Mapping[str, Any]]]:
    """Return the model, the images, and what is known of each; a line of the table goes first.

    Raises:
        SkinlesionError: if the model cannot be loaded, a folder holds no image, or a property, its
            value or the table is wrong; no image is read before.
    """
    with quick_imports():
        from skinlesion.data.archive import image_name
        from skinlesion.serving.model import load_run

    images = [image for path in options.images for image in images_in(Path(path))]
    names = [image_name(path.name) for path in images]
    model = load_run(options.model, options.device)
    common = dict(_pair(text) for text in options.set)
    common |= {name: value for name in SHORT if (value := getattr(options, name)) is not None}
    table = _read_csv(Path(options.csv), [*model.encoder.properties]) if options.csv else {}
    if options.csv and not table.keys() & set(names):
        raise SkinlesionError(
            f"{options.csv} names none of the images; it names {listing([*table], 3)}, the images "
            f"are {listing([path.name for path in images], 3)}."
        )
    rows: list[Mapping[str, Any]] = [common | table.get(name, {}) for name in names]
    model.encoder.frame(rows)  # only to check them
    return model, images, rows


def images_in(path: Path) -> list[Path]:
    """Return a file, or the images of a folder, sorted by name.

    What else is in a folder is named on the standard error: it may well be a picture.

    Raises:
        SkinlesionError: if a folder holds no image.
    """
    from skinlesion.data.archive import is_image
    from skinlesion.data.pixels import SUFFIXES

    if not path.is_dir():
        return [path]
    inside = sorted(path.iterdir())
    found = [entry for entry in inside if is_image(entry.name) and entry.is_file()]
    others = [entry.name for entry in inside if entry not in found]
    if not found:
        raise SkinlesionError(
            f"{path} holds no image ({', '.join(SUFFIXES)}), but {listing(others) or 'nothing'}."
        )
    if others:
        print(f"{path}: passed over, as no image: {listing(others)}", file=sys.stderr)
    return found


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SkinlesionError(f"--set {text}: expected name=value, such as --set age=45.")
    return name.strip(), value


def _read_csv(path: Path, properties: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return image → its metadata, blanks left out."""
    from skinlesion.data.archive import image_name
    from skinlesion.data.table import read_cells

    cells = read_cells(path)
    columns = {str(name).casefold(): str(name) for name in cells}
    key = next((columns[name] for name in NAME_COLUMNS if name in columns), None)
    known = {columns[name.casefold()]: name for name in properties if name.casefold() in columns}
    if key is None or not known:
        raise SkinlesionError(
            f"{path}: expected a column {' or '.join(NAME_COLUMNS)} and some of "
            f"{', '.join(properties) or 'none'}; found {listing([*cells], 12)}."
        )
    named = cells.dropna(subset=[key])
    names = [image_name(name) for name in named[key]]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise SkinlesionError(f"{path}: images with two lines: {listing(twice)}.")
    rows: Any = named[[*known]].rename(columns=known).to_dict("records")
    return {
        name: {column: cell for column, cell in row.items() if isinstance(cell, str)}
        for name, row in zip(names, rows, strict=True)
    }
