"""A model, images and their metadata on a command line: what predict and explain both take."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.cli import quick_imports
from skinlesion.errors import SkinlesionError, listing

if TYPE_CHECKING:  # torch takes seconds to import, which --help need not wait for
    from skinlesion.serving.model import LesionModel

SHORT = ("age", "sex", "localization")
NAME_COLUMNS = ("image", "image_id", "file", "filename")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `open_all` reads."""
    parser.add_argument(
        "run", metavar="RUN_OR_FILE", help="a run directory, or an exported .safetensors"
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="JPEG, PNG or WebP files, or folders"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1, mps")
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
        from skinlesion.serving.images import images_in
        from skinlesion.serving.model import load_run

    images = images_in([Path(path) for path in options.images])
    model = load_run(options.run, options.device)
    common = dict(_pair(said) for said in options.set)
    common |= {name: value for name in SHORT if (value := getattr(options, name)) is not None}
    table = _read_csv(Path(options.csv), model) if options.csv else {}
    if options.csv and not any(_of(table, path) for path in images):
        raise SkinlesionError(
            f"{options.csv} names none of the images; it names {listing([*table], 3)}, the images "
            f"are {listing([path.name for path in images], 3)}."
        )
    rows: list[Mapping[str, Any]] = [common | _of(table, path) for path in images]
    model.encoder.frame(rows)  # only to check them
    return model, images, rows


def _pair(said: str) -> tuple[str, str]:
    name, equals, value = said.partition("=")
    if not equals:
        raise SkinlesionError(f"--set {said}: expected name=value, such as --set age=45.")
    return name.strip(), value


def _of(table: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, Any]:
    return dict(table.get(path.name) or table.get(path.stem) or {})


def _read_csv(path: Path, model: "LesionModel") -> dict[str, dict[str, Any]]:
    """Return image → its metadata, blanks left out."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise SkinlesionError(f"{path} cannot be read as a table: {error}") from None
    written = {str(column).casefold().strip(): str(column) for column in frame}
    key = next((written[name] for name in NAME_COLUMNS if name in written), None)
    known = {
        name: written[name.casefold()]
        for name in model.encoder.properties
        if name.casefold() in written
    }
    if key is None or not known:
        raise SkinlesionError(
            f"{path}: expected a column {' or '.join(NAME_COLUMNS)} and some of "
            f"{', '.join(model.encoder.properties) or 'none'}; found {listing([*frame], 12)}."
        )
    if (twice := frame[key][frame[key].duplicated()]).size:
        raise SkinlesionError(f"{path}: images with two lines: {listing(twice.tolist())}.")
    return {
        row[key]: {name: row[column] for name, column in known.items() if row[column].strip()}
        for row in frame.to_dict("records")
    }
