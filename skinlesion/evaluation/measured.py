"""A held-out part of a run, measured: its numbers by address, with intervals and as text.

Addresses, such as `macro.auc`, are those of the registry (`skinlesion.evaluation.metrics`).
"""

from functools import cached_property, lru_cache
from typing import Any

from skinlesion.evaluation.bootstrap import drawn, interval
from skinlesion.evaluation.calibration import scale
from skinlesion.evaluation.metrics import OVERALL, Floats, Sample, evaluate, headlines, metric_at
from skinlesion.runs.predictions import SELECTED, Predictions
from skinlesion.text import interval as between
from skinlesion.text import number

DRAWS = 1000


class Measured:
    """A held-out part of a run, measured.

    Args:
        predictions: of one split: `name`, whose images did what `role` says.

    Attributes:
        y, probabilities: (n,) indices into `classes`, and (n, C).
        lesions: how many lesions these are images of.
    """

    def __init__(self, predictions: Predictions) -> None:
        self.predictions = predictions
        (self.name,) = predictions.splits
        self.role = SELECTED.get(self.name, "were trained on")
        self.classes = predictions.classes
        self.y, self.probabilities = predictions.y, predictions.probabilities
        self.lesions = int(predictions.frame["lesion_id"].nunique())
        self._once = Sample(self.y, self.probabilities, self.classes)
        self._intervals: dict[str, tuple[float, float]] = {}

    @classmethod
    def reported(cls, predictions: Predictions) -> "Measured":
        """Return the part that the protocol reports: test where there is one, else val."""
        return cls(predictions.part(predictions.reported))

    def support(self, c: int) -> int:
        """Return how many images a class has."""
        return int(self._once.support[0, c])

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Every metric, as :func:`metrics.evaluate` returns them."""
        return evaluate(self.y, self.probabilities, self.classes)

    def value(self, address: str) -> float:
        """Return the number at an address, NaN where it cannot be measured.

        Raises:
            SkinlesionError: if there is no such number.
        """
        return float(self._once.value(address)[0])

    def interval(self, address: str) -> tuple[float, float]:
        """Return its 95 % interval, drawing lesions; the draws are shared by all addresses."""
        if address not in self._intervals:
            self._intervals[address] = interval(_drawn(self).value(address))
        return self._intervals[address]

    def intervals(self) -> str:
        """Return the intervals of the numbers that runs are compared by, and of how sure it is."""
        ends = [f"{metric_at(a)[1]} {between(self.interval(a))}" for a in headlines(self.classes)]
        rest = [name for name, metric in OVERALL.items() if not metric.brief]
        sure = [f"{OVERALL[a].title} {self.text(a)} ({between(self.interval(a))})" for a in rest]
        return f"95 % intervals: {', '.join(ends)}\nhow sure: {', '.join(sure)}"

    def text(self, address: str) -> str:
        """Return the number at an address as the registry prints it."""
        return number(self.value(address), metric_at(address)[0].format)

    def scaled(self, temperature: float) -> "Measured":
        """Return the part with its probabilities after temperature scaling."""
        return self.answering(scale(self.probabilities, temperature))

    def answering(self, probabilities: Floats) -> "Measured":
        """Return the part with other probabilities (n, C)."""
        columns = dict(zip(self.classes, probabilities.T, strict=True))
        return Measured(Predictions(self.predictions.frame.assign(**columns), self.classes))


@lru_cache(maxsize=4)  # a folder may have hundreds of runs, and draws of one take megabytes
def _drawn(part: Measured) -> Sample:
    (sample,) = drawn([part.predictions], DRAWS)
    return sample
