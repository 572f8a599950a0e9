"""``python -m skinlesion.explain RUN image.jpg``: where a trained model looks."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from skinlesion.cli import report_errors
from skinlesion.errors import SkinlesionError
from skinlesion.serving.options import add_options, open_all

EPILOG = """\
examples:
  python -m skinlesion.explain runs/mobilenet_v2/6c516296a2/seed0 lesion.jpg --age 45
  python -m skinlesion.explain model.safetensors photos/ --csv photos.csv --class mel --out maps

Each image gives a figure, <image>_attention.png and .pdf: the attention maps, their sum over the
image, and Grad-CAM for the predicted class or the one named. Both show where a network looks, not
why, nor whether it is right. The panel of a run's own images, by class, is one of its figures:
python -m skinlesion.reporting figures RUN."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if an image could not be read."""
    options = _parser().parse_args(arguments)
    from tqdm import tqdm

    from skinlesion.reporting.figures.attention import explanation_figure
    from skinlesion.serving.attention import explain
    from skinlesion.serving.images import read_image

    model, images, rows = open_all(options)
    broken = 0
    for path, row in zip(tqdm(images, "explaining", disable=None), rows, strict=True):
        try:
            image = read_image(path)
        except SkinlesionError as error:
            broken += 1
            tqdm.write(f"error: {error}", file=sys.stderr)
            continue
        page = explanation_figure(explain(model, image, row, options.target), path.name)
        out = page.save(Path(options.out) / f"{path.stem}_attention.png")
        tqdm.write(str(out), file=sys.stdout)
    return int(broken > 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.explain",
        description="Draw where a trained model looks: soft-attention maps beside Grad-CAM.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument(
        "--class", dest="target", metavar="CLASS", help="whose Grad-CAM (default: the predicted)"
    )
    parser.add_argument("--out", default=".", metavar="FOLDER", help="for the figures (default: .)")
    return parser


if __name__ == "__main__":
    with report_errors():
        sys.exit(main())
