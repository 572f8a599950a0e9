"""Learning curves: what was measured after each epoch, and how.

Training and validation loss are kept apart, because they are seldom the same quantity: classes
weigh in training and, as in Keras, not in validation, and training is measured while it goes on.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import DictConfig, OmegaConf

from skinlesion.errors import SkinlesionError, listing
from skinlesion.reporting.figures.style import BLUE, GREEN, GREY, VERMILLION, in_style, new_figure
from skinlesion.runs.directory import HISTORY
from skinlesion.text import counted

STEPS = 8  # learning rates that are named
NOTE = (
    "Training is measured on each batch before the step that learns from it{harder}, validation "
    "after the epoch. The two losses have scales of their own: compare their shapes, not their "
    "heights. Balanced: validation, the mean recall of the classes. Dotted: the epoch that was "
    "kept."
)


@in_style
def learning_curves(history: pd.DataFrame, config: DictConfig, run: str) -> Figure:
    """Draw both losses, accuracies and learning rate over epochs; the kept epoch is marked.

    The history has the columns HISTORY and a row an epoch, else a SkinlesionError says what it
    lacks. The config says what the losses are and what selected the checkpoint, `run` which it is.
    """
    missing = [name for name in HISTORY if name not in history]
    if missing or history.empty:
        found = f"lacks {listing(missing, 8)}" if missing else "has no rows"
        raise SkinlesionError(f"the history {found}; expected {', '.join(HISTORY)} of each epoch")
    best, why = kept_epoch(history, config)
    about, epoch = f"{run} · {counted(len(history), 'epoch')}", history["epoch"]
    if best is not None:
        about += f"; kept: epoch {epoch.iloc[best]}, {why}"
    note = NOTE.format(harder=f" ({', '.join(words)})" if (words := harder(config)) else "")
    figure, body = new_figure(8, 4.9, "Learning curves", about, note)

    panels = body.subplots(2, 2, sharex=True)
    trained, validated = loss_words(config)
    titles = [f"training loss ({trained})", "accuracy"]
    titles += [f"validation loss ({validated})", "learning rate"]
    for panel, title in zip(panels.flat, titles, strict=True):
        panel.set_title(title)
        panel.grid(visible=True)
        if best is not None:
            panel.axvline(epoch.iloc[best], color=GREY, linewidth=1, linestyle=":")
    # A line through one point shows nothing.
    look: dict[str, Any] = {"marker": "o" if len(history) < 20 else "", "markersize": 3}
    (training, accuracy), (validation, rate) = panels
    training.plot(epoch, history["train_loss"], color=BLUE, **look)
    validation.plot(epoch, history["val_loss"], color=VERMILLION, **look)
    names = {"training": "train", "validation": "val", "balanced": "val_balanced"}
    for (label, name), colour in zip(names.items(), (BLUE, VERMILLION, GREEN), strict=True):
        accuracy.plot(epoch, history[f"{name}_accuracy"], color=colour, label=label, **look)
    accuracy.legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=3, handlelength=1.5)
    rate.plot(epoch, history["lr"], color="black", drawstyle="steps-mid", **look)
    rate.set(yscale="log", xlabel="epoch", xlim=(epoch.min() - 0.5, epoch.max() + 0.5))
    steps = np.unique(history["lr"].round(12))
    if len(steps) <= STEPS:  # a plateau's few values, and not powers of ten near them
        rate.set_yticks(steps, [f"{step:.3g}" for step in steps])
        rate.set_yticks([], minor=True)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    validation.set_xlabel("epoch")
    return figure


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
    """Return what the training and the validation loss are: weights, focus, what is harder."""
    loss = OmegaConf.select(config, "loss") or {}
    focal = ["focal"] if loss.get("focus") else []
    weighted = "classes weighted" if loss.get("weight") is not None else "unweighted"
    validated = weighted if loss.get("weigh_validation", False) else "unweighted"
    return ", ".join([*focal, weighted, *harder(config)]), ", ".join([*focal, validated])


def harder(config: DictConfig) -> list[str]:
    """Return what is done to training images and features, and not to those of the validation."""
    dropout = OmegaConf.select(config, "dropout")
    words = [f"dropout {dropout:g}"] if dropout else []
    return words + (["augmented"] if OmegaConf.select(config, "augment") else [])
