"""How good a run is on a held-out part: confusion, curves, reliability, and F1 beside the paper's.

Each function takes the part, and `about`: the line that says of which run and images it is.
"""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig, OmegaConf
from sklearn.calibration import CalibrationDisplay
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from skinlesion.evaluation.calibration import TOLERATED
from skinlesion.evaluation.measured import DRAWS, Measured
from skinlesion.evaluation.metrics import BINS, Sample, binned_errors, risks
from skinlesion.reporting.figures import style
from skinlesion.reporting.published import Cell, read_published
from skinlesion.text import aligned, interval, number

INTERVALS = f"n: images of the class. Intervals: 95 %, lesions drawn {DRAWS:,} times"
PAPER = (
    "The paper's values: Table 5, row {row}, of its own split by image, where about 42 % of "
    "the held-out images show a lesion that is also in training; the mean is that of the seven. "
)
MISPRINT = "Hollow: the authors' own output, where the paper misprints it ({audited}). "


@style.in_style
def confusion_matrix(part: Measured, about: str) -> Figure:
    """Draw two panels: counts, coloured by their logarithm, and shares of the true class."""
    counts = np.array(part.metrics["confusion"], dtype=np.float64)  # (C, C)
    with np.errstate(invalid="ignore"):  # a class without an image has no shares: NaN
        shares = 100 * counts / counts.sum(axis=1, keepdims=True)
    names = [textwrap.fill(name, 30) for name in part.classes]
    widest, cell = style.text_width(names), max(0.48, 2.8 / len(names))
    slant: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if widest > cell else {}
    figure, body = style.new_figure(
        2 * cell * len(names) + max(widest, 0.7) + 0.9,
        cell * len(names) + (0.75 * widest if slant else 0.1) + 0.6,
        "Confusion matrix",
        about,
        "Colour: the logarithm of the count, and the share of the row. n: images of the class.",
    )
    panels = body.subplots(1, 2, sharey=True)
    titles = ("images", "% of the true class (diagonal: recall)")
    norms = (LogNorm(0.8, max(counts.max(), 2)), Normalize(0, 100))
    for axes, title, values, norm in zip(panels, titles, (counts, shares), norms, strict=True):
        _matrix(axes, values, norm)
        axes.set_xticks(range(len(names)), names, fontsize=style.TEXT, **slant)
        axes.set(title=title, xlabel="predicted", ylabel="")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    labels = [f"{name}\n(n = {part.support(c):,})" for c, name in enumerate(names)]
    panels[0].set_yticks(range(len(names)), labels, fontsize=style.TEXT - 1, linespacing=1.05)
    panels[0].set_ylabel("true")
    # Squares need to be placed twice.
    figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
    return figure


def _matrix(axes: Axes, values: np.ndarray, norm: Normalize) -> None:
    shown = ConfusionMatrixDisplay(values)
    shown.plot(ax=axes, values_format=",.0f", cmap="Blues", colorbar=False, im_kw={"norm": norm})
    shown.im_.set_data(np.ma.masked_equal(np.ma.masked_invalid(values), 0))  # white
    # The display's colours of text are those of a linear scale from the least to the most.
    for value, text in zip(values.flat, shown.text_.flat, strict=True):
        dark = value > 0 and norm(value) > 0.6
        text.set_color("white" if dark else "black" if value else "#999999")
        text.set_fontsize(style.TEXT if value < 10_000 else style.TEXT - 2)
        text.set(visible=not np.isnan(value), in_layout=False)


@style.in_style
def roc(part: Measured, about: str) -> Figure:
    """Draw the ROC curve of each class, its area and interval beside it."""
    lines = table(part, "auc", "area")
    texts = ("ROC curves, each class against the rest", about, f"{INTERVALS}.")
    figure, axes = _curves(part, RocCurveDisplay, lines, texts)
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle=":", zorder=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity (recall)")
    return figure


@style.in_style
def precision_recall(part: Measured, about: str) -> Figure:
    """Draw the precision-recall curve of each class, and the precision of guessing: its share."""
    shares = [part.support(c) / len(part.y) for c in range(len(part.classes))]
    lines = table(part, "average_precision", "area", ["share", *map(number, shares)])
    note = "area: average precision. share of the class: the precision of guessing, dotted. "
    texts = ("Precision-recall curves, each class against the rest", about, f"{note}{INTERVALS}.")
    figure, axes = _curves(part, PrecisionRecallDisplay, lines, texts)
    for curve in axes.lines:
        # Where recall stands still, a step has no width: of such points the best is drawn.
        recall, precision = map(np.asarray, curve.get_data())
        kept = np.append(np.diff(recall) != 0, True)
        recall, precision = recall[kept], precision[kept]
        curve.set_data(recall, np.append(precision[:-1], precision[-2]))
    for c, share in enumerate(shares):
        guessing: Any = {"linestyle": (0, (1, 2)), "linewidth": 0.9, "zorder": 1}
        axes.axhline(share, **style.LOOKS[c % len(style.LOOKS)] | guessing)
    axes.set(xlabel="recall", ylabel="precision")
    return figure


def table(part: Measured, metric: str, title: str, *more: Sequence[str]) -> list[str]:
    """Return lines that line up: a header, each class, and their mean: value, interval and images.

    `metric` is one by class of the registry, and `title` its header. `more` are columns: a header,
    a cell for each class, and perhaps one for the mean.
    """
    addresses = [*(f"per_class.{name}.{metric}" for name in part.classes), f"macro.{metric}"]
    columns = [
        ("class", *part.classes, "macro mean"),
        (title, *(number(part.value(address), ".3f") for address in addresses)),
        ("95 % interval", *(interval(part.interval(address), ".3f") for address in addresses)),
        *more,
        ("n", *(f"{part.support(c):,}" for c in range(len(part.classes))), f"{len(part.y):,}"),
    ]
    return aligned([*zip_longest(*columns, fillvalue="")], gap=2).split("\n")


def _curves(
    part: Measured, display: Any, lines: list[str], texts: tuple[str, str, str]
) -> tuple[Figure, Axes]:
    """Draw the curve of each class, and beside them a legend that is a table."""
    width = 5.5 + style.text_width(lines)
    figure, body = style.new_figure(width, max(4.6, 0.21 * len(lines)), *texts)
    axes, nothing = body.subplots(), Line2D([], [], linestyle="")
    looks = [style.LOOKS[c % len(style.LOOKS)] for c in range(len(part.classes))]
    for c, look in enumerate(looks):
        if 0 < part.support(c) < len(part.y):
            drawn = display.from_predictions(part.y == c, part.probabilities[:, c], ax=axes)
            drawn.line_.set(**look, label=part.classes[c])
    handles = [nothing, *(Line2D([], [], linewidth=2, **look) for look in looks), nothing]
    beside: Any = {"loc": "upper left", "bbox_to_anchor": (1.02, 1), "borderaxespad": 0}
    axes.legend(handles, lines, prop=style.MONO, labelspacing=0.6, **beside)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", anchor="NW")
    axes.grid(visible=True)
    return figure, axes


@style.in_style
def reliability(part: Measured, about: str, temperature: float | None, fitted_on: str) -> Figure:
    """Draw accuracy over confidence, before and after temperature scaling, and each bin's images.

    `temperature` was fitted on the images that `fitted_on` names; None: then only before.
    """
    panels, fitted = {"as predicted": part}, ""
    if temperature is not None:
        panels[f"with a temperature of {temperature:.2f}"] = part.scaled(temperature)
        fitted = f" The temperature has the least log loss on {fitted_on}."
    figure, body = style.new_figure(
        max(3.3 * len(panels) + 0.5, 5.5),
        4.7,
        "Reliability: confidence and accuracy",
        about,
        "Confidence: the probability of the predicted class. Dots: accuracy and mean confidence of "
        f"{BINS} bins; lines: the distance between the two; ECE: its mean, weighted by the bins' "
        f"images; dotted: as often right as sure.{fitted}",
    )
    look: Any = {"squeeze": False, "sharex": True, "sharey": "row", "height_ratios": [3, 1]}
    rows = body.subplots(2, len(panels), **look)
    for (title, shown), diagram, below in zip(panels.items(), *rows, strict=True):
        confidence = shown.probabilities.max(axis=1)
        correct = (shown.probabilities.argmax(axis=1) == shown.y).astype(int)
        dot: Any = {"color": style.BLUE, "marker": "o", "linestyle": "", "clip_on": False}
        x = CalibrationDisplay.from_predictions(correct, confidence, n_bins=BINS, ax=diagram, **dot)
        distance: Any = {"color": style.VERMILLION, "zorder": 1}
        diagram.vlines(x.prob_pred, x.prob_pred, x.prob_true, **distance)
        diagram.get_legend().remove()
        diagram.set(xlim=(0, 1), ylim=(0, 1), xlabel="", ylabel="")
        diagram.set_title(f"{title}: ECE {shown.text('ece')}")
        diagram.grid(visible=True)
        bins, _ = binned_errors(shown.y, shown.probabilities)  # from 1: a confidence is above 0
        count, centre = np.bincount(bins, minlength=BINS + 1)[1:], (np.arange(BINS) + 0.5) / BINS
        grey: Any = {"color": style.PALE, "edgecolor": style.GREY, "linewidth": 0.5}
        bars = below.bar(centre, count, 0.9 / BINS, **grey)
        numbers = [f"{n:,}" if n else "" for n in count]
        below.bar_label(bars, numbers, padding=2, fontsize=style.TEXT - 2, rotation=90)
        below.set(xlabel="confidence", ymargin=0.45)
    rows[0, 0].set_ylabel("accuracy")
    rows[1, 0].set_ylabel("images")
    return figure


@style.in_style
def risk_coverage(part: Measured, about: str) -> Figure:
    """Draw the error of the images that are answered over their share, the surest first."""
    answered, risk = risks(Sample(part.y, part.probabilities, part.classes))  # (K, 1)
    area, most = (part.text(name) for name in ("aurc", "answered_at_5"))
    low, high = part.interval("answered_at_5")
    note = f"AURC, the mean of the curve: {area}, 95 % interval {interval(part.interval('aurc'))}. "
    note += f"With at most 5 % wrong {most} of the images can be answered, the surest first "
    note += f"(95 % interval, bar: {interval((low, high))}): known only afterwards, no promise."
    figure, body = style.new_figure(5.5, 3.6, "Risk over coverage", about, note)
    axes = body.subplots()
    share = answered[:, 0] / len(part.y)
    axes.plot(share, risk[:, 0], color=style.BLUE, drawstyle="steps-pre", clip_on=False)
    axes.axhline(TOLERATED, color=style.GREY, linewidth=1, linestyle=":")
    bar: Any = {"color": style.VERMILLION, "clip_on": False}
    axes.hlines(TOLERATED, low, high, linewidth=2.5, alpha=0.55, **bar)
    axes.plot([part.value("answered_at_5")], [TOLERATED], marker="o", **bar)
    axes.set(xlabel="coverage: share of the images answered", ylabel="risk: share of them wrong")
    axes.set(xlim=(0, 1), ylim=(0, max(1.05 * risk.max(), 2 * TOLERATED)))
    axes.grid(visible=True)
    return figure


@style.in_style
def per_class_f1(part: Measured, about: str, row: str, published: Mapping[str, Cell]) -> Figure:
    """Draw a point and interval for each class and for their mean, the paper's beside them.

    `row` and `published` are the paper's cells by class, all or none; see :func:`published_row`.
    """
    printed = [float(cell.published or 0) for cell in published.values()]
    paper = [*printed, float(np.mean(printed))] if published else []  # it prints no mean
    column = [["paper", *(f"{value:.2f}" for value in paper)]] if published else []
    lines = table(part, "f1", "F1", *column)
    # Where the printed value is known to be wrong.
    wrong = {k: c.audited for k, c in published.items() if c.audited and "; " in c.source}
    audited = ", ".join(f"{name} {value:.3f}" for name, value in wrong.items())
    note = PAPER.format(row=row) if published else ""
    note += MISPRINT.format(audited=audited) if wrong else ""
    note += f"{INTERVALS}; they do not cover the noise of training."
    width, height = 4.3 + style.text_width(lines), 0.3 * len(lines) + 0.8
    figure, body = style.new_figure(width, height, "F1 of each class", about, note)

    axes = body.subplots()
    addresses = [*(f"per_class.{name}.f1" for name in part.classes), "macro.f1"]
    places = np.array([*range(len(part.classes)), len(part.classes) + 0.3])
    ends = np.transpose([part.interval(address) for address in addresses])
    wide: Any = {"color": style.BLUE, "linewidth": 2.5, "alpha": 0.55, "label": "95 % interval"}
    axes.hlines(places, *ends, **wide)
    dot: Any = {"linestyle": "", "clip_on": False}
    values = [part.value(address) for address in addresses]
    axes.plot(values, places, marker="o", color=style.BLUE, label="this run", **dot)
    # A little below the run's, so that none hides the other.
    dot |= {"marker": "D", "markersize": 5, "color": style.VERMILLION}
    if published:
        axes.plot(paper, places + 0.2, label="paper", **dot)
    if wrong:
        below = [part.classes.index(name) + 0.2 for name in wrong]
        label = "paper's own output"
        axes.plot([*wrong.values()], below, markerfacecolor="none", label=label, **dot)
    axes.axhline(places[-2] + 0.65, color=style.GREY, linewidth=0.6)
    axes.set(xlabel="F1", xlim=(0, 1), ylim=(places[-1] + 0.5, -1.2))
    axes.set_yticks([-0.8, *places], lines, **style.MONO)
    axes.tick_params(axis="y", length=0, pad=8)
    axes.grid(visible=True, axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1.02, 1), ncols=4, handlelength=1.2)
    return figure


def published_row(config: DictConfig, classes: tuple[str, ...]) -> tuple[str, dict[str, Cell]]:
    """Return the name of the paper's row of a run's backbone, and its cells by class.

    None where the paper has none: it has photographs of HAM10000's classes, and metadata.
    """
    name = f"md_{OmegaConf.select(config, 'backbone.name')}"
    drawn = OmegaConf.select(config, "data.demo") is not None
    without_metadata = OmegaConf.select(config, "metadata.name") in (None, "none")
    found = {
        column: cell
        for (table, row, column), cell in read_published().items()
        if (table, row) == (5, name) and column != "sigma" and cell.published
    }
    return name, {} if drawn or without_metadata or tuple(found) != classes else found
