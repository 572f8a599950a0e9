"""``skinlesion explain``: where a trained model looks."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from skinlesion.errors import SkinlesionError
from skinlesion.serving.options import add_images, add_model, open_all

EPILOG = """\
examples:
  skinlesion explain runs/mobilenet_v2/6c516296a2/seed0 lesion.jpg --age 45
  skinlesion explain model.safetensors photos/ --csv photos.csv --class mel --out maps

Each image gives a figure, <image>_attention.png and .pdf: the attention maps, their sum over the
image, and Grad-CAM for the predicted class or the one named. Both show where a network looks, not
why, nor whether it is right. The panel of a run's own images, by class, is one of its figures:
skinlesion figures RUN."""


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Draw where a trained model looks."""
    parser.description = "Draw where a trained model looks: soft-attention maps beside Grad-CAM."
    parser.epilog = EPILOG
    add_model(parser)
    add_images(parser)
    parser.add_argument(
        "--class", dest="target", metavar="CLASS", help="whose Grad-CAM (default: the predicted)"
    )
    parser.add_argument("--out", default=".", metavar="FOLDER", help="for the figures (default: .)")
    return run


def run(options: argparse.Namespace) -> int:
    """Explain and draw; return 1 if an image could not be read."""
    model, images, rows = open_all(options)

    from tqdm import tqdm

    from skinlesion.data.pixels import read_image
    from skinlesion.reporting.figures.gallery import explanation_figure
    from skinlesion.reporting.figures.style import save
    from skinlesion.serving.attention import explain

    broken = 0
    for path, row in zip(tqdm(images, "explaining", disable=None), rows, strict=True):
        try:
            image = read_image(path)
        except SkinlesionError as error:
            broken += 1
            tqdm.write(f"error: {error}", file=sys.stderr)
            continue
        figure = explanation_figure(explain(model, image, row, options.target), path.name)
        out = save(figure, Path(options.out) / f"{path.stem}_attention.png")
        tqdm.write(str(out), file=sys.stdout)
    return int(broken > 0)
