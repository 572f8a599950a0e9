"""``skinlesion export``: trained runs as files to carry away."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from skinlesion.errors import SkinlesionError
from skinlesion.serving.export import FORMATS, USUAL, choose

EPILOG = f"""\
formats:
{chr(10).join(f"  {kind:<12} {known.file:<18} {known.about}" for kind, known in FORMATS.items())}

Beside them, always: README.md, the model card, and export.json, all that was measured. The folder
then holds what was asked for this time; other formats of an earlier time are removed.

Every file but int8 is checked to compute what the network does, on held-out images of the run's
data; what eight bits cost is measured on all of them. Where the data is not at hand there is no
int8, and the check is on noise.

examples:
  skinlesion export runs/mobilenet_v2/6c516296a2/seed0
  skinlesion export runs/*/*/seed0 --out exported --formats onnx,int8
  skinlesion export RUN --data ../ham10000 --phone"""
HEAD = (
    *("run", "file", "MB", "parameters", "input, px", "latency, ms"),
    *("accuracy", "balanced accuracy", "measured on"),
)


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Export runs."""
    parser.description = (
        "Turn trained runs into files to carry away, and compare them in one table."
    )
    parser.epilog = EPILOG
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="directories, runs/<backbone>/<key>/seed<k>")
    add(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="make a folder for each run in it, and table.md (default: export/ in the run)",
    )
    choices = f"some of {', '.join(FORMATS)} (default: {USUAL})"
    add("--formats", default=USUAL, metavar="A,B", help=choices)
    add("--phone", action="store_true", help="the phone's too (pip install skinlesion[phone])")
    where = "where the runs' images are (default: where they had them)"
    add("--data", type=Path, metavar="FOLDER", help=where)
    often = "how often each file is timed (default: 50; 0: not at all)"
    add("--repeats", type=int, default=50, metavar="N", help=often)
    return run


def run(options: argparse.Namespace) -> None:
    """Export, measure, and print the table."""
    formats = choose(f"{options.formats},phone" if options.phone else options.formats)
    if options.repeats < 0:
        raise SkinlesionError(f"--repeats {options.repeats}: expected 0 or more.")

    from tqdm import tqdm

    from skinlesion.files import replacing
    from skinlesion.serving.export.bundle import export_run
    from skinlesion.serving.export.card import markdown
    from skinlesion.text import aligned

    def tell(text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    exports = [
        export_run(path, options.out, formats, options.data, options.repeats, tell)
        for path in dict.fromkeys(map(Path, options.runs))
    ]
    records = [record for _, record in exports]
    rows = [_row(record, kind) for record in records for kind in record["files"]]
    print(aligned([HEAD, None, *rows], left=2))
    print()
    for folder, _ in exports:
        print(folder)
    if options.out:
        processors = sorted({record["provenance"]["cpu"] or "unknown" for record in records})
        text = markdown("table.md", head=HEAD, rows=rows, processors=processors)
        with replacing(options.out / "table.md") as path:
            path.write_text(text, encoding="utf-8")
        print(options.out / "table.md")


def _row(record: dict[str, Any], kind: str) -> Sequence[str]:
    from skinlesion.serving.export.card import latency
    from skinlesion.text import counted, number

    about = record["files"][kind]
    quality = about["quality"]
    cells = ["not measured" if record["trained"] else "not trained"] * 2 + ["-"]
    if quality is not None:
        images = counted(quality["n"], "drawn image" if record["data"] == "drawn" else "image")
        cells = [number(quality["accuracy"]), number(quality["balanced_accuracy"])]
        cells += [f"{record['part']}, {images}; {counted(record['epochs'], 'epoch')}"]
    return [
        *(record["run"], FORMATS[kind].file, number(about["mb"], ".2f")),
        *(f"{record['parameters']:,}", str(record["input_size"]), latency(about), *cells),
    ]
