"""Each conclusion of the paper put to the test: what was published, audited, and what runs say.

A claim (claims.yaml) has contrasts: two values of the config, and what gets less or more from one
to the other. Runs that differ there and in nothing else make a pair; a pair has the same seed, so
the same split. Pairs are averaged over the settings in which both were trained, then over seeds;
the interval draws seeds and lesions together (:func:`skinlesion.evaluation.bootstrap.over_seeds`).
A verdict is by lesion: what is measured by image, with its leak, only stands beside it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel

from skinlesion.evaluation.bootstrap import drawn, interval, over_seeds
from skinlesion.evaluation.measured import DRAWS
from skinlesion.evaluation.metrics import metric_at
from skinlesion.reporting.published import read_published
from skinlesion.reporting.results import Run
from skinlesion.text import DASH, number

CLAIMS = Path(__file__).with_suffix(".yaml")
LEAKING = "by image"
SUPPORTED, CONTRADICTED, OPEN, NOT_RUN = "supported", "contradicted", "not settled", "not run"

Pair = tuple[Run, Run]
Settings = dict[tuple[str, ...], dict[int, Pair]]  # the keys of both → seed → runs


class Cells(BaseModel, extra="forbid"):
    """Two cells of one column of a table, `rows` as in published.csv."""

    table: int
    column: str
    rows: tuple[str, str]

    @property
    def text(self) -> str:
        """The two cells in words, audited where the authors' outputs are known."""
        first, second = (read_published()[self.table, row, self.column] for row in self.rows)
        audited = f"{number(first.audited)} → {number(second.audited)}"
        return f"{first.published} → {second.published} (audited {audited})"


class Audit(BaseModel, extra="forbid"):
    """What published numbers support, once audited."""

    verdict: Literal["supported", "contradicted", "not settled"]
    why: str


class Contrast(BaseModel, extra="forbid"):
    """Two `values` of the config's entry `switch`, and where each address is said to go.

    A name, and what a choice may lack (null), stand for the whole node that the choice is.
    """

    switch: str
    values: tuple[Any, Any]
    measures: dict[str, Literal["less", "more"]]
    sweep: str

    @property
    def differs(self) -> str:
        """Where in the config the two differ: the node, or the value alone."""
        node, _, name = self.switch.partition(".")
        return node if name == "name" or None in self.values else self.switch

    @property
    def texts(self) -> list[str]:
        """The two values in words."""
        return ["none" if value is None else str(value) for value in self.values]


class Claim(BaseModel, extra="forbid"):
    """A conclusion of the paper, see claims.yaml."""

    claim: str
    place: str
    published: list[Cells]
    audit: Audit
    tests: str | None = None
    contrasts: list[Contrast] = []


@dataclass(frozen=True)
class Estimate:
    """A number under both values of a contrast: means over pairs, and their difference.

    `verdict` is on the direction that the claim says. One seed settles nothing: its interval holds
    no training noise.
    """

    address: str
    before: float
    after: float
    ends: tuple[float, float]
    said: str
    seeds: int

    @property
    def title(self) -> str:
        """The number in words."""
        return metric_at(self.address)[1]

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """Whether the interval lies on the side of 0 that the claim says, or on the other."""
        low, high = self.ends
        if self.seeds < 2 or not (low > 0 or high < 0):
            return OPEN
        return SUPPORTED if (low > 0) == (self.said == "more") else CONTRADICTED


@dataclass(frozen=True)
class Tested:
    """A contrast measured under one protocol; `settings` are those that both values share."""

    contrast: Contrast
    protocol: str
    backbones: list[str]
    settings: int
    seeds: list[int]
    estimates: list[Estimate]


@dataclass(frozen=True)
class Judged:
    """A claim and what its contrasts gave; `not_run` are those that no pair of runs has."""

    name: str
    claim: Claim
    tested: list[Tested]
    not_run: list[Contrast]

    @property
    def verdict(self) -> str:
        """What the contrasts say together: their verdict where they agree."""
        if not self.claim.contrasts:
            return DASH
        found = {t.estimates[0].verdict for t in self.tested if t.protocol != LEAKING}
        return NOT_RUN if not found else found.pop() if len(found) == 1 else OPEN


def judge(runs: Sequence[Run]) -> list[Judged]:
    """Put every claim of claims.yaml to the test; of runs of one config and seed the first counts.

    What makes pairs of them is found by their configs.
    """
    judged = []
    for name, node in yaml.safe_load(CLAIMS.read_text(encoding="utf-8")).items():
        claim = Claim.model_validate(node)
        tested = [_tested(contrast, runs) for contrast in claim.contrasts]
        left = [c for c, found in zip(claim.contrasts, tested, strict=True) if not found]
        judged.append(Judged(name, claim, [t for found in tested for t in found], left))
    return judged


def _tested(contrast: Contrast, runs: Iterable[Run]) -> list[Tested]:
    """Return a contrast measured under each protocol that has a pair of runs.

    Of settings with different seeds those count that have the most, so that each seed's mean is
    over the same settings.
    """
    tested = []
    for protocol, settings in sorted(_pairs(contrast, runs).items(), key=lambda p: p[0] == LEAKING):
        by_seeds: dict[frozenset[int], list[Mapping[int, Pair]]] = defaultdict(list)
        for pairs in settings.values():
            by_seeds[frozenset(pairs)].append(pairs)
        seeds = max(by_seeds, key=lambda seeds: (len(seeds), len(by_seeds[seeds])))
        chosen = by_seeds[seeds]
        names = {pair[0].config.backbone for pairs in chosen for pair in pairs.values()}
        estimates = _estimates(contrast, [[p[seed] for p in chosen] for seed in seeds])
        found = (sorted(names), len(chosen), sorted(seeds), estimates)
        tested.append(Tested(contrast, protocol, *found))
    return tested


def _pairs(contrast: Contrast, runs: Iterable[Run]) -> dict[str, Settings]:
    """Return the pairs by protocol, setting and seed."""
    differs = contrast.differs
    alike: dict[tuple[str, ...], dict[int, Run]] = defaultdict(dict)
    for run in runs:
        value: Any = run.values
        for name in contrast.switch.split("."):
            value = (value or {}).get(name)
        if value in contrast.values:
            # Weights are another file for each backbone.
            weights = "" if differs == "backbone" else run.provenance.weights
            key = (run.protocol, run.directory.identity_but(differs), run.provenance.data, weights)
            alike[key].setdefault(contrast.values.index(value), run)
    pairs: dict[str, Settings] = defaultdict(lambda: defaultdict(dict))
    for both in alike.values():
        if len(both) == 2:
            pair = both[0], both[1]
            setting = pair[0].place[-2], pair[1].place[-2]
            pairs[pair[0].protocol][setting][pair[0].config.seed] = pair
    return pairs


def _estimates(contrast: Contrast, seeds: list[list[Pair]]) -> list[Estimate]:
    """Measure the pairs of each seed."""
    runs = [run for pairs in seeds for pair in pairs for run in pair]
    shape = len(seeds), len(seeds[0]), 2
    values = {a: np.array([run.part.value(a) for run in runs]) for a in contrast.measures}
    samples = drawn([run.part.predictions for run in runs], DRAWS)
    on_draws = [[sample.value(a) for a in contrast.measures] for sample in samples]
    estimates = []
    for i, (address, said) in enumerate(contrast.measures.items()):
        before, after = values[address].reshape(shape).mean(axis=(0, 1))
        each = np.array([of_run[i] for of_run in on_draws]).reshape(*shape, DRAWS).mean(axis=1)
        ends = interval(over_seeds(each[:, 1] - each[:, 0]))
        estimates.append(Estimate(address, float(before), float(after), ends, said, len(seeds)))
    return estimates
