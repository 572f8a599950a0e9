"""Learning curves: what was measured after each epoch, and how.

Training and validation loss are kept apart, because they are seldom the same quantity: classes
weigh in training and, as in Keras, not in validation, and training is measured while it goes on.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from omegaconf import DictConfig, OmegaConf

from skinlesion.errors import SkinlesionError, listing
from skinlesion.runs.history import COLUMNS
from skinlesion.reporting.figures.page import BLUE, GREEN, GREY, VERMILLION, Page, in_style

WIDTH, HEIGHT = 3.3, 1.75  # of a panel, inches
STEPS = 8  # learning rates that are named
LEFT, BETWEEN, LOW, STACKED = 0.45, 0.65, 0.45, 0.5


@in_style
def learning_curves(history: pd.DataFrame, config: DictConfig, run: str) -> Page:
    """Draw both losses, accuracies and learning rate over epochs; the kept epoch is marked.

    Args:
        history: the columns COLUMNS, a row an epoch.
        config: of the run: what its losses are, and what selected its checkpoint.
        run: which run it is, in words.

    Raises:
        SkinlesionError: if columns are missing or there is no row.
    """
    if missing := [name for name in COLUMNS if name not in history]:
        raise SkinlesionError(
            f"the history lacks {listing(missing, 8)}; its columns are {', '.join(COLUMNS)}"
        )
    if history.empty:
        raise SkinlesionError("the history has no rows; expected one per epoch")

    best, why = kept_epoch(history, config)
    trained, validated = loss_words(config)
    made_hard = f" ({', '.join(said)})" if (said := harder(config)) else ""
    page = Page(
        LEFT + 2 * WIDTH + BETWEEN,
        LOW + 2 * HEIGHT + STACKED + 0.25,
        "Learning curves",
        f"{run} · {len(history)} {'epoch' if len(history) == 1 else 'epochs'}"
        + (f"; kept: epoch {history['epoch'].iloc[best]}, {why}" if best is not None else ""),
        f"Training is measured on each batch before the step that learns from it{made_hard}, "
        "validation after the epoch. The two losses have scales of their own: compare their "
        "shapes, not their heights. Balanced: validation, the mean recall of the classes. Dotted: "
        "the epoch that was kept.",
    )
    upper, right = LOW + HEIGHT + STACKED, LEFT + WIDTH + BETWEEN
    panels = {
        "training": page.axes(LEFT, upper, WIDTH, HEIGHT),
        "validation": page.axes(LEFT, LOW, WIDTH, HEIGHT),
        "accuracy": page.axes(right, upper, WIDTH, HEIGHT),
        "rate": page.axes(right, LOW, WIDTH, HEIGHT),
    }
    # A line through one point shows nothing.
    look: dict[str, Any] = {"marker": "o" if len(history) < 20 else "", "markersize": 3}
    epoch = history["epoch"]

    panels["training"].plot(epoch, history["train_loss"], color=BLUE, **look)
    panels["training"].set(title=f"training loss ({trained})")
    panels["validation"].plot(epoch, history["val_loss"], color=VERMILLION, **look)
    panels["validation"].set(title=f"validation loss ({validated})", xlabel="epoch")

    accuracy = panels["accuracy"]
    for name, colour, label in (
        ("train_accuracy", BLUE, "training"),
        ("val_accuracy", VERMILLION, "validation"),
        ("val_balanced_accuracy", GREEN, "balanced"),
    ):
        accuracy.plot(epoch, history[name], color=colour, label=label, **look)
    accuracy.set(title="accuracy")
    accuracy.legend(
        loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=3, columnspacing=1, handlelength=1.5
    )

    rate = panels["rate"]
    rate.plot(epoch, history["lr"], color="black", drawstyle="steps-mid", **look)
    rate.set(title="learning rate", yscale="log", xlabel="epoch")
    steps = np.unique(history["lr"].round(12))
    if len(steps) <= STEPS:  # a plateau's few values, and not powers of ten near them
        rate.set_yticks(steps, [f"{step:.3g}" for step in steps])
        rate.set_yticks([], minor=True)
    for panel in panels.values():
        _epochs(panel, epoch, None if best is None else int(epoch.iloc[best]))
    return page


def kept_epoch(history: pd.DataFrame, config: DictConfig) -> tuple[int | None, str]:
    """Return the row of the epoch whose checkpoint is kept, and why; None where nobody can say.

    The first of equally good ones, as Lightning keeps it.
    """
    best = OmegaConf.select(config, "callbacks.best") or {}
    monitor, mode = best.get("monitor", "val_accuracy"), best.get("mode", "max")
    # A run that diverged has losses that are no numbers; Lightning keeps none of those epochs.
    if monitor not in history or history[monitor].isna().all():
        return None, ""
    values = history[monitor]
    row = int(values.argmax() if mode == "max" else values.argmin())
    extreme = "highest" if mode == "max" else "lowest"
    name = monitor.replace("val_", "validation ").replace("_", " ")
    return row, f"of the {extreme} {name} ({values.iloc[row]:.3f})"


def loss_words(config: DictConfig) -> tuple[str, str]:
    """Say what the training and the validation loss are: weights, focus, what is harder."""
    loss = OmegaConf.select(config, "loss") or {}
    focal = ["focal"] if loss.get("focus") else []
    weighted = "classes weighted" if loss.get("weight") is not None else "unweighted"
    validated = weighted if loss.get("weigh_validation", False) else "unweighted"
    return ", ".join([*focal, weighted, *harder(config)]), ", ".join([*focal, validated])


def harder(config: DictConfig) -> list[str]:
    """Say what is done to training images and features, and not to those of the validation."""
    dropout = OmegaConf.select(config, "dropout")
    said = [f"dropout {dropout:g}"] if dropout else []
    return said + (["augmented"] if OmegaConf.select(config, "augment") else [])


def _epochs(panel: Axes, epoch: pd.Series, best: int | None) -> None:
    panel.set_xlim(epoch.min() - 0.5, epoch.max() + 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    panel.grid(visible=True)
    if best is not None:
        panel.axvline(best, color=GREY, linewidth=1, linestyle=":")
