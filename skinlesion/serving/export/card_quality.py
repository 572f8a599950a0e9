"""The model card's part on quality: metrics with intervals, what eight bits cost, calibration."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from skinlesion.evaluation.bootstrap import interval, resample, value_at
from skinlesion.evaluation.calibration import scale
from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import Predictions
from skinlesion.serving.answer import full_name
from skinlesion.serving.export.card_origin import SEEN
from skinlesion.serving.export.formats import FILES
from skinlesion.serving.export.text import percent, table
from skinlesion.serving.model import LesionModel

DRAWS = 1000
OVERALL = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy (mean recall)",
    "macro.precision": "precision, mean over classes",
    "macro.f1": "F1, mean over classes",
    "macro.auc": "AUC of a class against the rest, mean over classes",
}
PER_CLASS = {"recall": "recall", "precision": "precision", "f1": "F1", "auc": "AUC"}
# No intervals: they would lie too high (see skinlesion.evaluation.bootstrap).
CALIBRATION = {"ece": "expected calibration error, 15 bins", "brier": "Brier score"}


def quality(part: Predictions, record: Mapping[str, Any]) -> str:
    """Return the metrics of the reported part, with intervals from drawing lesions."""
    if not record["trained"]:
        return "## Quality\n\nNot trained, so not measured."
    of_classes = [f"per_class.{label}.{name}" for label in part.classes for name in PER_CLASS]
    draws = resample(part, [*OVERALL, *of_classes], DRAWS)
    measured = evaluate(part.y, part.probabilities, part.classes)

    def cell(address: str) -> str:
        value = value_at(measured, address)
        if np.isnan(value):
            return "-"
        return f"{value:.3f} ({'-'.join(f'{end:.3f}' for end in interval(draws[address]))})"

    lesions = part.frame["lesion_id"].nunique()
    where = SEEN[record["part"]]
    about = (
        f"{where[0].upper()}{where[1:]}: {len(part.y):,} images of {lesions:,} lesions. In "
        f"brackets 95 % intervals, from drawing lesions {DRAWS:,} times: they cover the choice of "
        "lesions and not the noise of training."
    )
    overall = [["", "value"], *([name, cell(address)] for address, name in OVERALL.items())]
    classes = [["class", "images", *PER_CLASS.values()]]
    for label, values in measured["per_class"].items():
        cells = [cell(f"per_class.{label}.{name}") for name in PER_CLASS]
        classes.append([full_name(label), f"{values['support']:,}", *cells])
    return "\n\n".join(["## Quality", about, table(overall), table(classes)])


def rounded(record: Mapping[str, Any]) -> str:
    """Return what eight bits cost; nothing if there is no such file."""
    if (about := record["files"].get("int8")) is None:
        return ""
    done = about["quantisation"]
    how = (
        f"`{FILES['int8']}`: {done['convolutions']} convolutions in eight bits ({done['format']}), "
        f"the first {done['convolutions_left_in_float32']} and all that is not the backbone in "
        f"float32; calibrated on {done['images']} training images."
    )
    if (loss := about.get("against_float32")) is None:
        return f"{how} What this costs was not measured."
    after = about["quality"]
    return (
        f"{how} On the same {after['n']:,} images its accuracy is {after['accuracy']:.3f} "
        f"({100 * loss['accuracy']:+.1f} points against float32) and its balanced accuracy "
        f"{after['balanced_accuracy']:.3f} ({100 * loss['balanced_accuracy']:+.1f} points); for "
        f"{percent(loss['same_answer'], 1)} of them it gives the same answer."
    )


def calibration(part: Predictions, model: LesionModel, record: Mapping[str, Any]) -> str:
    """Return the temperature, and what it does to the reported part."""
    said = (
        f"## Calibration\n\nLogits are divided by a temperature of {model.temperature:.4f}, fitted "
        "on the validation part (Guo et al. 2017, arXiv:1706.04599). It changes how sure the model "
        "says it is, never which class it says."
    )
    if not record["trained"]:
        return said
    if record["part"] == "val":
        said += " The same images are measured here, so it looks better than on new ones."
    raw = evaluate(part.y, part.probabilities, part.classes)
    scaled = evaluate(part.y, scale(part.probabilities, model.temperature), part.classes)
    rows = [["", "as trained", "calibrated"]]
    rows += [[title, f"{raw[k]:.3f}", f"{scaled[k]:.3f}"] for k, title in CALIBRATION.items()]
    return f"{said}\n\n{table(rows)}"
