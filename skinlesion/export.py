"""``python -m skinlesion.export RUN …``: trained runs as files to carry away."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from skinlesion.cli import report_errors
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.serving.export.formats import ABOUT, FILES, USUAL, choose

EPILOG = f"""\
formats:
{chr(10).join(f"  {kind:<12} {FILES[kind]:<18} {ABOUT[kind]}" for kind in FILES)}

Beside them, always: README.md, the model card, and export.json, all that was measured. The folder
then holds what was asked for this time; other formats of an earlier time are removed.

Every file but int8 is checked to compute what the network does, on held-out images of the run's
data; what eight bits cost is measured on all of them. Where the data is not at hand there is no
int8, and the check is on noise.

examples:
  python -m skinlesion.export runs/mobilenet_v2/6c516296a2/seed0
  python -m skinlesion.export runs/*/*/seed0 --out exported --formats onnx,int8
  python -m skinlesion.export RUN --data ../ham10000 --phone"""
REPEATS = 50


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; wrong input ends in one message and exit code 1."""
    options = _parser().parse_args(arguments)
    formats = choose(options.formats, options.phone)
    if options.repeats < 0:
        raise SkinlesionError(f"--repeats {options.repeats}: expected 0 or more.")
    out = Path(options.out) if options.out else None
    data = Path(options.data) if options.data else None

    from tqdm import tqdm

    from skinlesion.serving.export.bundle import export_run, time_exports
    from skinlesion.serving.export.summary import console, markdown

    def say(text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    runs = list(dict.fromkeys(Path(run) for run in options.runs))
    exports = [export_run(run, out, formats, data, say) for run in runs]
    if options.repeats:
        time_exports(exports, options.repeats)
    records = [export.record for export in exports]
    print(console(records))
    print()
    for export in exports:
        print(export.folder)
    if out:
        with replacing(out / "table.md") as path:
            path.write_text(markdown(records), encoding="utf-8")
        print(out / "table.md")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.export",
        description="Turn trained runs into files to carry away, and compare them in one table.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="run directories, runs/<backbone>/<key>/seed<k>"
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="make a folder for each run in it, and table.md (default: export/ in the run)",
    )
    parser.add_argument(
        "--formats",
        default=",".join(USUAL),
        metavar="A,B",
        help=f"some of {', '.join(FILES)} (default: {','.join(USUAL)})",
    )
    parser.add_argument(
        "--phone",
        action="store_true",
        help="the phone's format too (pip install skinlesion[phone])",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the runs' images are (default: where they had them)"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=REPEATS,
        metavar="N",
        help=f"how often each file is timed (default: {REPEATS}; 0: not at all)",
    )
    return parser


if __name__ == "__main__":
    with report_errors():
        main()
