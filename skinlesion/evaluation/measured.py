"""A held-out part of a run, measured.

    part = Measured.reported(read_predictions(run.predictions))     # what the protocol reports
    part = Measured(predictions.part("val"))                        # or one of the parts

    part.name                               "val" or "test"; part.role what its images did
    part.y, part.probabilities              (n,) class indices, (n, C)
    part.classes, part.support(c)           the names, and how many images class c has
    part.lesions                            how many lesions these are images of
    part.metrics                            what `evaluate` returns, for JSON
    part.value("macro.auc")                 one number; NaN where it cannot be measured
    part.interval("per_class.mel.auc")      its 95 % interval, drawing lesions 1,000 times
    part.text("accuracy")                   "0.836", as the registry prints it
    part.scaled(temperature)                the same part after temperature scaling

Addresses are those of the registry (`skinlesion.evaluation.metrics`); `metric_at(address)` there
gives a number's title. `part.interval` shares its draws: ask for as many as you like.
"""

from functools import cached_property, lru_cache
from typing import Any

from skinlesion.evaluation.bootstrap import drawn, interval
from skinlesion.evaluation.calibration import scale
from skinlesion.evaluation.metrics import Sample, evaluate, metric_at
from skinlesion.runs.predictions import SELECTED, Predictions
from skinlesion.text import number

DRAWS = 1000


class Measured:
    """A held-out part of a run, measured; see the module for what it has.

    Args:
        predictions: of one split.
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
        """Return its 95 % interval by drawing lesions (:mod:`skinlesion.evaluation.bootstrap`)."""
        if address not in self._intervals:
            self._intervals[address] = interval(_drawn(self).value(address))
        return self._intervals[address]

    def text(self, address: str) -> str:
        """Return the number at an address as the registry prints it."""
        return number(self.value(address), metric_at(address)[0].format)

    def scaled(self, temperature: float) -> "Measured":
        """Return the part with its probabilities after temperature scaling."""
        scaled = dict(zip(self.classes, scale(self.probabilities, temperature).T, strict=True))
        return Measured(Predictions(self.predictions.frame.assign(**scaled), self.classes))


@lru_cache(maxsize=4)  # a folder may have hundreds of runs, and draws of one take megabytes
def _drawn(part: Measured) -> Sample:
    (sample,) = drawn([part.predictions], DRAWS)
    return sample
