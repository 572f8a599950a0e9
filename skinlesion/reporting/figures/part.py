"""A held-out part of a run, measured once for all its figures."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skinlesion.evaluation.bootstrap import (
    interval,
    resample,
    resample_average_precision,
    value_at,
)
from skinlesion.evaluation.metrics import average_precision, evaluate, macro
from skinlesion.runs.predictions import Predictions

DRAWS = 1000
AVERAGE_PRECISION = "ap"  # an address like those of evaluate, which has no such metric
SELECTED = {"val": "validation part, which selected the checkpoint", "test": "test part"}


@dataclass(frozen=True)
class Part:
    """One part of a run's predictions.

    Attributes:
        name: `val` or `test`.
        run: which run it is, in words.
        predictions: of this part only.
    """

    name: str
    run: str
    predictions: Predictions

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the file."""
        return self.predictions.classes

    @cached_property
    def y(self) -> NDArray[np.int64]:
        """The true classes, (n,)."""
        return self.predictions.y

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """The probabilities, (n, C)."""
        return self.predictions.probabilities

    @property
    def about(self) -> str:
        """The run, the part and its size, for the line under a title."""
        lesions = self.predictions.frame["lesion_id"].nunique()
        what = SELECTED.get(self.name, self.name)
        return f"{self.run} · {what}: {len(self.y):,} images of {lesions:,} lesions"

    def support(self, c: int) -> int:
        """The images of a class."""
        return int((self.y == c).sum())

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What :func:`metrics.evaluate` returns, with average precision per class and macro."""
        found = evaluate(self.y, self.probabilities, self.classes)
        areas = average_precision(self.y, self.probabilities)
        found["macro"][AVERAGE_PRECISION] = float(macro(areas))
        for label, area in zip(self.classes, areas, strict=True):
            found["per_class"][label][AVERAGE_PRECISION] = float(area)
        return found

    @cached_property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of AUC, F1 and average precision by address, from draws of lesions."""
        names = ("auc", "f1")
        addresses = [self.address(c, name) for c in range(len(self.classes)) for name in names]
        addresses += [f"macro.{name}" for name in names]
        draws = resample(self.predictions, addresses, DRAWS)
        areas = resample_average_precision(self.predictions, DRAWS)  # (DRAWS, C)
        for c, drawn in enumerate(areas.T):
            draws[self.address(c, AVERAGE_PRECISION)] = drawn
        draws[f"macro.{AVERAGE_PRECISION}"] = macro(areas)
        return {address: interval(drawn) for address, drawn in draws.items()}

    def address(self, c: int, metric: str) -> str:
        """Return where a metric of a class is found in `metrics` and `intervals`."""
        return f"per_class.{self.classes[c]}.{metric}"

    def value(self, address: str) -> float:
        """Return one number of `metrics`; NaN where it cannot be measured."""
        return value_at(self.metrics, address)

    def words(self, address: str, digits: int = 3) -> tuple[str, str]:
        """Return a value and its interval as text; dashes where it cannot be measured."""
        value = self.value(address)
        if np.isnan(value):
            return "-", "-"
        return f"{value:.{digits}f}", "-".join(
            f"{end:.{digits}f}" for end in self.intervals[address]
        )
