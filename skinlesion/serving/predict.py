"""``skinlesion predict``: what a trained model says about images."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.errors import SkinlesionError
from skinlesion.serving.options import add_images, add_model, open_all

if TYPE_CHECKING:
    import numpy as np

    from skinlesion.serving.model import LesionModel, Prediction

EPILOG = """\
examples:
  skinlesion predict runs/mobilenet_v2/6c516296a2/seed0 lesion.jpg --age 45 --sex male
  skinlesion predict model.safetensors photos/ --csv photos.csv --json > answers.jsonl

The probabilities are calibrated (their temperature was fitted on the run's validation images) and,
beside them, raw. An image that cannot be read is one line of the output; the exit code is then 1.
It is research software and no medical device."""
BATCH = 32


def command(parser: argparse.ArgumentParser) -> Callable[[argparse.Namespace], int | None]:
    """Print a probability for each class."""
    parser.description = (
        "Print what a trained model says about images: a probability for each class."
    )
    parser.epilog = EPILOG
    add_model(parser)
    add_images(parser)
    parser.add_argument(
        "--json", action="store_true", help="a JSON object for each image, a line each"
    )
    return run


def run(options: argparse.Namespace) -> int:
    """Predict and print; return 1 if an image could not be read."""
    from tqdm import tqdm

    model, images, rows = open_all(options)
    print(
        f"{options.model}: {model.description['network']['backbone']['name']}, reads "
        f"{', '.join(model.properties) or 'no metadata'}; temperature {model.temperature:.2f}. "
        "Research software, no medical device.",
        file=sys.stderr,
    )
    longest = max(map(len, model.classes))
    name = min(max([len(path.name) for path in images] + [5]), 40)
    widths = name, max(longest, 9), max(longest, 6) + 1
    if not options.json:
        head = _line(widths, "image", "predicted", "", model.classes)
        print(f"{head}\n{'-' * len(head)}")
    broken = 0
    with tqdm(total=len(images), unit="img", disable=None) as bar:
        for path, answer in predictions(model, images, rows):
            broken += isinstance(answer, str)
            # Through tqdm, or bar and lines would mix on a terminal.
            text = _json_line(path, answer) if options.json else _lines(widths, path.name, answer)
            bar.write(text, file=sys.stdout)
            sys.stdout.flush()
            bar.update()
    if broken:
        print(f"{broken} of {len(images)} images could not be read", file=sys.stderr)
    return int(broken > 0)


def predictions(
    model: "LesionModel", images: Sequence[Path], rows: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Path, "Prediction | str"]]:
    """Yield each image with its prediction, or with why it cannot be read, in order."""
    import numpy as np

    from skinlesion.data.pixels import read_image, to_square

    def fitted(path: Path) -> "np.ndarray | str":
        try:
            return to_square(read_image(path), model.size)
        except SkinlesionError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BATCH):
            answers: list[Any] = [*pool.map(fitted, images[start : start + BATCH])]
            whole = [i for i, image in enumerate(answers) if not isinstance(image, str)]
            if whole:
                batch = np.stack([answers[i] for i in whole])  # (B, S, S, 3)
                found = model.predict_batch(batch, [rows[start + i] for i in whole])
                for i, prediction in zip(whole, found, strict=True):
                    answers[i] = prediction
            yield from zip(images[start : start + BATCH], answers, strict=True)


def _json_line(path: Path, answer: "Prediction | str") -> str:
    found: dict[str, Any] = {"image": str(path)}
    if isinstance(answer, str):
        return json.dumps(found | {"error": answer})
    found |= {"predicted": answer.label, "probabilities": answer.probabilities, "raw": answer.raw}
    return json.dumps(found | {"missing": answer.missing})


def _lines(widths: tuple[int, int, int], name: str, answer: "Prediction | str") -> str:
    if isinstance(answer, str):
        return f"{name:<{widths[0]}}  error: {answer}"
    calibrated, raw = (
        [f"{p:.4f}" for p in values.values()] for values in (answer.probabilities, answer.raw)
    )
    without = f"   without {', '.join(answer.missing)}" if answer.missing else ""
    first = _line(widths, name, answer.label, "calibrated", calibrated)
    return f"{first}{without}\n{_line(widths, '', '', 'raw', raw)}"


def _line(
    widths: tuple[int, int, int], name: str, label: str, kind: str, cells: Sequence[str]
) -> str:
    numbers = "".join(f"{text:>{widths[2]}}" for text in cells)
    return f"{name:<{widths[0]}}  {label:<{widths[1]}}  {kind:<10}{numbers}"
