"""``python -m skinlesion.predict RUN image.jpg …``: what a trained model says about images."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinlesion.cli import report_errors
from skinlesion.errors import SkinlesionError
from skinlesion.serving.options import add_options, open_all

if TYPE_CHECKING:
    import numpy as np

    from skinlesion.serving.model import LesionModel, Prediction

EPILOG = """\
examples:
  python -m skinlesion.predict runs/mobilenet_v2/6c516296a2/seed0 lesion.jpg --age 45 --sex male
  python -m skinlesion.predict model.safetensors photos/ --csv photos.csv --json > answers.jsonl

The probabilities are calibrated (their temperature was fitted on the run's validation images) and,
beside them, raw. An image that cannot be read is one line of the output; the exit code is then 1.
It is research software and no medical device."""
BATCH = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 if an image could not be read."""
    options = _parser().parse_args(arguments)
    from tqdm import tqdm

    model, images, rows = open_all(options)
    broken = 0
    write = _write_json if options.json else _table_writer(model, images)
    print(_about(options.run, model), file=sys.stderr)
    with tqdm(total=len(images), unit="img", disable=None) as bar:
        for path, answer in predictions(model, images, rows):
            broken += isinstance(answer, str)
            # Through tqdm, or bar and lines would mix on a terminal.
            bar.write(write(path, answer), file=sys.stdout)
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

    from skinlesion.data.cache import to_square
    from skinlesion.serving.images import read_image

    def fitted(path: Path) -> "np.ndarray | str":
        try:
            return to_square(read_image(path), model.size)
        except SkinlesionError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BATCH):
            chunk = images[start : start + BATCH]
            read = list(pool.map(fitted, chunk))
            whole = [i for i, image in enumerate(read) if not isinstance(image, str)]
            answers: dict[int, Any] = {i: why for i, why in enumerate(read) if isinstance(why, str)}
            if whole:
                batch = np.stack([read[i] for i in whole])  # (B, S, S, 3)
                found = model.predict_batch(batch, [rows[start + i] for i in whole])
                answers |= dict(zip(whole, found, strict=True))
            yield from ((path, answers[i]) for i, path in enumerate(chunk))


def _about(run: str, model: "LesionModel") -> str:
    reads = ", ".join(model.properties) or "no metadata"
    return (
        f"{run}: {model.description['network']['backbone']['name']}, reads {reads}; temperature "
        f"{model.temperature:.2f}. Research software, no medical device."
    )


def _write_json(path: Path, answer: "Prediction | str") -> str:
    if isinstance(answer, str):
        return json.dumps({"image": str(path), "error": answer})
    return json.dumps(
        {
            "image": str(path),
            "predicted": answer.label,
            "probabilities": answer.probabilities,
            "raw": answer.raw,
            "missing": answer.missing,
        }
    )


def _table_writer(model: "LesionModel", images: Sequence[Path]) -> Any:
    """Return a function that lays an answer out; the first one begins with the head."""
    width = min(max([len(path.name) for path in images] + [5]), 40)
    cell = max([len(name) for name in model.classes] + [6]) + 1
    named = max([len(name) for name in model.classes] + [9])
    head = f"{'image':<{width}}  {'predicted':<{named}}            " + "".join(
        name.rjust(cell) for name in model.classes
    )
    pending = [head, "-" * len(head)]

    def lay_out(path: Path, answer: "Prediction | str") -> str:
        lines, pending[:] = [*pending], []
        if isinstance(answer, str):
            return "\n".join([*lines, f"{path.name:<{width}}  error: {answer}"])
        for kind, values in (("calibrated", answer.probabilities), ("raw", answer.raw)):
            left = (path.name, answer.label) if kind == "calibrated" else ("", "")
            lines.append(
                f"{left[0]:<{width}}  {left[1]:<{named}}  {kind:<10}"
                + "".join(f"{p:.4f}".rjust(cell) for p in values.values())
            )
        if answer.missing:
            lines[-2] += f"   without {', '.join(answer.missing)}"
        return "\n".join(lines)

    return lay_out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.predict",
        description="Print what a trained model says about images: a probability for each class.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser)
    parser.add_argument(
        "--json", action="store_true", help="a JSON object for each image, a line each"
    )
    return parser


if __name__ == "__main__":
    with report_errors():
        sys.exit(main())
