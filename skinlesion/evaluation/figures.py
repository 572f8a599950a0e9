"""Figures of a run: confusion matrix, ROC curves, learning curves.

Drawn through matplotlib's object-oriented API, so that nothing here opens a window or leaves state
behind. The colours are those of Okabe and Ito (Color Universal Design, 2008), without the yellow
that is hard to see on white.
"""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from skinlesion.errors import SkinlesionError, listing
from skinlesion.evaluation.history import COLUMNS, read_history
from skinlesion.evaluation.metrics import auc, evaluate
from skinlesion.evaluation.predictions import read_predictions
from skinlesion.files import replacing

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
BLUE, VERMILLION, GREEN = COLOURS[:3]
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.edgecolor": "none",
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


def confusion_figure(metrics: dict[str, Any], title: str) -> Figure:
    """Draw the confusion matrix of what :func:`metrics.evaluate` returns.

    Cells show counts; their colour is the share of the true class, so that rare classes show as
    well as frequent ones.
    """
    counts = np.array(metrics["confusion"])  # (C, C)
    classes = list(metrics["per_class"])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.4, 4.4)
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.55 else "black" if count else "#999999"
            axes.text(column, row, str(count), ha="center", va="center", color=ink)
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        bar = figure.colorbar(image, ax=axes)
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
    return figure


def roc_figure(
    y: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    classes: tuple[str, ...],
    title: str,
) -> Figure:
    """Draw the one-vs-rest ROC curve of each class, its AUC in the legend.

    `y` is (n,), `probabilities` (n, C). A class that has no curve, because no sample or every
    sample is of it, is named in the legend.
    """
    from sklearn.metrics import roc_curve

    with matplotlib.rc_context(STYLE):
        figure = _figure(5.0, 4.8)
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle=":")
        for c, area in enumerate(auc(y, probabilities)):
            label = f"{classes[c]}  AUC {area:.3f}"
            false_positives, true_positives = [], []
            if np.isnan(area):
                label = f"{classes[c]}  {'the only class' if (y == c).any() else 'absent'}: no AUC"
            else:
                false_positives, true_positives, _ = roc_curve(y == c, probabilities[:, c])
            axes.plot(
                false_positives,
                true_positives,
                color=COLOURS[c % len(COLOURS)],
                # Past seven classes the colours come round again.
                linestyle=("-", "--", "-.")[c // len(COLOURS) % 3],
                label=label,
            )
        axes.set(
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.01),
            aspect="equal",
            xlabel="1 - specificity",
            ylabel="sensitivity",
            title=title,
        )
        axes.grid(visible=True)
        axes.legend(loc="lower right")
    return figure


def learning_curves(history: pd.DataFrame, title: str) -> Figure:
    """Draw loss, accuracy and learning rate over epochs; the best epoch is marked.

    `history` has the columns COLUMNS, one row per epoch. The best epoch is the first of those with
    the highest `val_accuracy`. Raises SkinlesionError if columns are missing or there is no row.
    """
    missing = [name for name in COLUMNS if name not in history]
    if missing:
        raise SkinlesionError(
            f"the history lacks {listing(missing, 8)}; its columns are {', '.join(COLUMNS)}"
        )
    if history.empty:
        raise SkinlesionError("the history has no rows; expected one per epoch")

    epoch = history["epoch"]
    best = int(history["val_accuracy"].to_numpy().argmax())
    best_epoch, best_accuracy = epoch.iloc[best], history["val_accuracy"].iloc[best]
    marker = "o" if len(history) < 20 else "None"  # a line through one point shows nothing
    with matplotlib.rc_context(STYLE | {"lines.marker": marker, "lines.markersize": 3.5}):
        figure = _figure(6.4, 6.0)
        loss, accuracy, rate = panels = figure.subplots(3, sharex=True, height_ratios=(4, 4, 2))
        for name, panel in (("loss", loss), ("accuracy", accuracy)):
            panel.plot(epoch, history[f"train_{name}"], color=BLUE, label="training")
            panel.plot(epoch, history[f"val_{name}"], color=VERMILLION, label="validation")
            panel.set_ylabel(name)
        balanced = history["val_balanced_accuracy"]
        accuracy.plot(epoch, balanced, color=GREEN, label="validation, balanced")
        rate.plot(epoch, history["lr"], color="black", drawstyle="steps-mid")
        rate.set(yscale="log", xlabel="epoch", ylabel="learning rate")
        rate.set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
        rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
        for panel in panels:
            panel.grid(visible=True)
            panel.axvline(best_epoch, color="#777777", linewidth=1, linestyle=":", marker="")
        label = f"best epoch {best_epoch}: {best_accuracy:.3f}"
        accuracy.plot(best_epoch, best_accuracy, "*", ms=11, color="black", label=label)
        # Outside the panels it hides nothing; accuracy has every kind of line.
        figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower center", ncols=4)
        loss.set_title(title)
        figure.align_ylabels()
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as a PNG at 150 dpi, whole or not at all; return its path."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    return Path(path)


def draw_run_figures(
    predictions_path: str | Path, history_path: str | Path, folder: str | Path
) -> list[Path]:
    """Draw every figure of a run into `folder` and return their paths.

    ``confusion_matrix_<split>.png`` and ``roc_<split>.png`` for each split of the predictions, and
    ``learning_curves.png`` from the history (a CSV with the columns COLUMNS). Raises
    SkinlesionError if either file is wrong.
    """
    folder = Path(folder)
    predictions = read_predictions(predictions_path)
    history = read_history(history_path)

    paths = []
    for split in predictions.splits:
        part = predictions.part(split)
        y, probabilities, classes = part.y, part.probabilities, part.classes
        matrix = confusion_figure(
            evaluate(y, probabilities, classes), f"Confusion matrix, {split} (n = {len(y):,})"
        )
        curves = roc_figure(
            y, probabilities, classes, f"ROC, one-vs-rest, {split} (n = {len(y):,})"
        )
        paths += [
            save(matrix, folder / f"confusion_matrix_{split}.png"),
            save(curves, folder / f"roc_{split}.png"),
        ]
    return [
        *paths,
        save(learning_curves(history, "Learning curves"), folder / "learning_curves.png"),
    ]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
