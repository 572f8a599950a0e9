"""`python -m skinlesion.data`: fetch HAM10000, draw the demo data, or describe data of your own."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from skinlesion.cli import report_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.data",
        description="Fetch HAM10000, draw the demo data, or describe data of your own.",
        epilog="HAM10000: Tschandl, Rosendahl, Kittler 2018, doi:10.7910/DVN/DBW86T, CC BY-NC 4.0.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("download", help="fetch HAM10000 from Harvard Dataverse (3 GB)")
    fetch.add_argument("--root", type=Path, default=Path("data/ham10000"), help="where to put it")
    fetch.add_argument("--server", default="https://dataverse.harvard.edu", help="the Dataverse")
    draw = commands.add_parser("demo", help="draw a small set in HAM10000's own layout")
    draw.add_argument("--root", type=Path, default=Path("data/demo"), help="where to put it")
    draw.add_argument("--images", type=int, default=700, help="how many photographs")
    draw.add_argument("--seed", type=int, default=0, help="another seed, other lesions")
    own = commands.add_parser("describe", help="print a conf/data/<name>.yaml for your own table")
    own.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="CSV, or tab-separated")
    own.add_argument("--image", required=True, metavar="COLUMN", help="the images' names")
    classes = own.add_mutually_exclusive_group(required=True)
    classes.add_argument("--label", metavar="COLUMN", help="the class")
    classes.add_argument("--one-hot", nargs="+", metavar="COLUMN", help="a column for each class")
    own.add_argument("--lesion", metavar="COLUMN", help="which lesion it is, if known")
    options = parser.parse_args(arguments)

    if options.command == "download":
        from skinlesion.data.download import download

        for path in download(options.root, server=options.server):
            print(path)
    elif options.command == "describe":
        from skinlesion.data.describe import describe_tables

        named = (options.image, options.label, options.one_hot or (), options.lesion)
        print(describe_tables(options.tables, *named), end="")
    else:
        from skinlesion.data.demo import write_demo

        print(write_demo(options.root, images=options.images, seed=options.seed))


if __name__ == "__main__":
    with report_errors(resumes=True):
        main()
