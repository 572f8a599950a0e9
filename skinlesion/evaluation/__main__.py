"""``python -m skinlesion.evaluation PREDICTIONS.csv``: the metrics of a predictions file."""

import argparse
import json
import sys
from collections.abc import Sequence

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.metrics import evaluate_file, summary_table

DESCRIPTION = """\
Print the metrics of a run from its predictions, split by split: per class (each
against the rest), their macro mean and population standard deviation (the
paper's sigma), and over all samples."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, or 1 if the file is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.evaluation",
        description=DESCRIPTION,
        epilog="example: python -m skinlesion.evaluation runs/resnet50/1f3a/seed0/predictions.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "predictions",
        metavar="PREDICTIONS.csv",
        help="image_id, lesion_id, split, label, and one probability column per class",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object, split to metrics, in full precision",
    )
    options = parser.parse_args(arguments)
    try:
        metrics = evaluate_file(options.predictions)
    except SkinlesionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(metrics, indent=2, allow_nan=False))
    else:
        print("\n\n".join(f"{split}\n{summary_table(part)}" for split, part in metrics.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
