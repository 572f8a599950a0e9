"""`skinlesion data`: fetch HAM10000 or the ISIC 2018 test set, draw, or describe your own."""

import argparse
from collections.abc import Callable
from pathlib import Path


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Add the commands."""
    parser.epilog = "HAM10000: Tschandl et al. 2018, doi:10.7910/DVN/DBW86T, CC BY-NC 4.0."
    commands = parser.add_subparsers(
        metavar="download | demo | duplicates | describe", required=True
    )
    fetch = commands.add_parser("download", help="fetch HAM10000 from Harvard Dataverse (3 GB)")
    fetch.add_argument("--root", type=Path, help="where to put it (default: in data/)")
    other = fetch.add_mutually_exclusive_group()
    other.add_argument("--test", action="store_true", help="the ISIC 2018 test set instead")
    other.add_argument("--masks", action="store_true", help="the lesions' masks instead (11 MB)")
    fetch.add_argument("--server", default="https://dataverse.harvard.edu", help="the Dataverse")
    fetch.set_defaults(task=_download)
    draw = commands.add_parser("demo", help="draw a small set in HAM10000's own layout")
    draw.add_argument("--root", type=Path, default=Path("data/demo"), help="where to put it")
    draw.add_argument("--images", type=int, default=700, help="how many photographs")
    draw.add_argument("--seed", type=int, default=0, help="another seed, other lesions")
    draw.set_defaults(task=_demo)
    pairs = commands.add_parser("duplicates", help="find the same picture under two lesions")
    pairs.add_argument("root", type=Path, metavar="FOLDER", help="HAM10000, images and table")
    pairs.add_argument("--against", type=Path, metavar="FOLDER", help="images of a test set")
    pairs.add_argument("--threshold", type=float, default=0.97, help="of the correlation")
    pairs.add_argument("--out", type=Path, metavar="CSV", help="write the pairs there as well")
    pairs.set_defaults(task=_duplicates)
    own = commands.add_parser("describe", help="print a conf/data/<name>.yaml for your own table")
    own.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="CSV, or tab-separated")
    own.add_argument("--image", required=True, metavar="COLUMN", help="the images' names")
    classes = own.add_mutually_exclusive_group(required=True)
    classes.add_argument("--label", metavar="COLUMN", help="the class")
    classes.add_argument("--one-hot", nargs="+", metavar="COLUMN", help="a column for each class")
    own.add_argument("--lesion", metavar="COLUMN", help="which lesion it is, if known")
    own.set_defaults(task=_describe)
    return lambda options: options.task(options)


def _download(options: argparse.Namespace) -> None:
    from skinlesion.data.archive import MASKS
    from skinlesion.data.download import TEST, download

    root = options.root or Path("data", "isic2018_test" if options.test else "ham10000")
    asked = TEST if options.test else (MASKS,) if options.masks else ()
    print(*download(root, options.server, asked=asked), sep="\n")


def _demo(options: argparse.Namespace) -> None:
    from skinlesion.data.demo import write_demo

    print(write_demo(options.root, images=options.images, seed=options.seed))


def _duplicates(options: argparse.Namespace) -> None:
    from omegaconf import OmegaConf

    from skinlesion.cli import CONF
    from skinlesion.data.duplicates import as_text, find_duplicates
    from skinlesion.files import replacing

    declared = OmegaConf.load(CONF / "data" / "ham10000.yaml").data
    pairs = find_duplicates(options.root, declared, options.threshold, options.against)
    print(as_text(pairs))
    if options.out:
        with replacing(options.out) as path:
            pairs.to_csv(path, index=False, float_format="%.6f")


def _describe(options: argparse.Namespace) -> None:
    from skinlesion.data.describe import describe_tables

    one_hot = options.one_hot or ()
    columns = (options.image, options.label, one_hot, options.lesion)
    print(describe_tables(options.tables, *columns), end="")
