"""What scaling on the validation part makes of probabilities: temperature beside vector scaling.

Vector scaling (Guo et al. 2017, arXiv:1706.04599, section 4.2) gives each class a factor and an
offset: softmax(a log p + b). Unlike a temperature it changes answers. Of a network that was trained
with class weights it takes them back, because rare classes are as rare in the validation part as
elsewhere; so it is measured here, and prediction (`skinlesion.serving`) keeps to the temperature.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from skinlesion.evaluation.calibration import SMALLEST, fit_temperature, scale, softmax
from skinlesion.evaluation.measured import Measured
from skinlesion.evaluation.metrics import Floats, Ints, Sample, metric_at, nll
from skinlesion.runs.predictions import Predictions
from skinlesion.text import aligned, number

FOLDS = 5
BY_CLASS = ("ece", "brier", "nll")
OVER_ALL = (*BY_CLASS, "accuracy", "balanced_accuracy")


def fit_vector(y: Ints, probabilities: Floats) -> tuple[Floats, Floats]:
    """Return a factor and an offset for each class, (C,) each, with the least likelihood loss.

    Args:
        y: (n,) true classes, as indices in [0, C).
        probabilities: (n, C), each row sums to 1.
    """
    from scipy.optimize import minimize

    logits, truth = np.log(np.maximum(probabilities, SMALLEST)), np.eye(probabilities.shape[1])[y]

    def loss(both: Floats) -> tuple[float, Floats]:
        factor, offset = np.split(both, 2)
        found = softmax(factor * logits + offset)
        apart = (found - truth) / len(y)
        slope = np.concatenate([(apart * logits).sum(axis=0), apart.sum(axis=0)])
        return -np.log(np.maximum((found * truth).sum(axis=1), SMALLEST)).mean(), slope

    classes = logits.shape[1]
    start = np.repeat([1 / fit_temperature(y, probabilities), 0.0], classes)
    factor, offset = np.split(minimize(loss, start, jac=True, method="L-BFGS-B").x, 2)
    return factor, offset


def scale_vector(probabilities: Floats, fitted: tuple[Floats, Floats]) -> Floats:
    """Return softmax(a log p + b) of each row, (n, C) to (n, C)."""
    return softmax(fitted[0] * np.log(np.maximum(probabilities, SMALLEST)) + fitted[1])


SCALINGS = {"temperature": (fit_temperature, scale), "vector": (fit_vector, scale_vector)}


def better_on(val: Predictions) -> str:
    """Return the scaling with the lower NLL on lesions that it was not fitted on, in five folds."""
    lesions = pd.factorize(val.frame["lesion_id"])[0]
    fold = np.random.default_rng(0).permutation(lesions.max() + 1)[lesions] % FOLDS
    scaled = {name: np.empty(val.probabilities.shape) for name in SCALINGS}
    for held in (fold == k for k in range(FOLDS) if (fold == k).any()):
        for name, (fit, apply) in SCALINGS.items():
            fitted = fit(val.y[~held], val.probabilities[~held])
            scaled[name][held] = apply(val.probabilities[held], fitted)  # type: ignore[operator]
    return min(scaled, key=lambda name: nll(Sample(val.y, scaled[name], val.classes))[0])


def show_calibration(runs: Sequence[tuple[Predictions, Predictions]]) -> str:
    """Return as text how sure runs are, each scaled by its own val: means over the runs.

    Each is what was fitted on, which needs a part `val`, and what is reported.
    """
    if any("val" not in fitted.splits or shown.reported == "val" for fitted, shown in runs):
        return (
            "\ncalibration: not measured, as there is no other part than val, on which it is fitted"
        )
    found: dict[str, list[Measured]] = {"as trained": [], **{name: [] for name in SCALINGS}}
    for fitted, shown in runs:
        val, part = fitted.part("val"), Measured.reported(shown)
        found["as trained"].append(part)
        for name, (fit, apply) in SCALINGS.items():
            probabilities = apply(part.probabilities, fit(val.y, val.probabilities))  # type: ignore[operator]
            found[name].append(part.answering(probabilities))
    chosen = [better_on(fitted.part("val")) for fitted, _ in runs]
    better = ", ".join(f"{name} {chosen.count(name)} of {len(runs)}" for name in SCALINGS)

    def mean(name: str, address: str) -> str:
        return number(float(np.mean([part.value(address) for part in found[name]])))

    rows = [[name, *(mean(name, address) for address in OVER_ALL)] for name in found]
    head = ["", *(metric_at(address)[1] for address in OVER_ALL)]
    classes: list[list[str] | None] = [["as trained -> temperature", *BY_CLASS], None]
    for label in runs[0][1].classes:
        addresses = [f"per_class.{label}.{name}" for name in BY_CLASS]
        classes.append(
            [label, *(f"{mean('as trained', a)} -> {mean('temperature', a)}" for a in addresses)]
        )
    return (
        f"\ncalibration, fitted on val; better there, in {FOLDS} folds by lesion: {better}\n"
        f"{aligned([head, None, *rows])}\n\n{aligned(classes)}"
    )
