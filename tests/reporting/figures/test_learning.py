"""Learning curves: what the lines are, and which epoch was kept."""

import numpy as np
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.reporting.figures.learning import kept_epoch, learning_curves, loss_words
from tests.reporting.figures.conftest import config_of, history_of, written


def test_the_losses_stand_apart_say_what_they_are_and_the_kept_epoch_is_marked():
    history = history_of(60, train_loss=np.linspace(2, 1, 60))
    history.loc[30:, "lr"] = 8.000000000000001e-6
    figure = learning_curves(history, config_of(), "a run")
    text = written(figure)
    assert "training loss (classes weighted, dropout 0.5)" in text
    assert "validation loss (unweighted)" in text
    assert figure.axes[0].lines[-1].get_ydata()[[0, -1]] == pytest.approx([2, 1])
    assert "a run · 60 epochs; kept: epoch 60, of the highest validation accuracy (0.900)" in text
    assert [t.get_text() for t in figure.axes[3].get_yticklabels()] == ["8e-06", "0.001"]
    assert [axes.lines[0].get_xdata()[0] for axes in figure.axes] == [60] * 4
    assert "a run · 1 epoch; kept" in written(learning_curves(history_of(1), config_of(), "a run"))


def test_the_first_of_equally_good_epochs_is_kept_by_what_selects_the_checkpoint():
    losses, accuracies = [3.0, np.nan, 1, 1, 2], [0.1, 0.6, 0.5, 0.6, 0.2]
    history = history_of(5, val_loss=losses, val_accuracy=accuracies)
    assert kept_epoch(history, config_of()) == (1, "of the highest validation accuracy (0.600)")
    by_loss = config_of(callbacks={"best": {"monitor": "val_loss", "mode": "min"}})
    assert kept_epoch(history, by_loss) == (2, "of the lowest validation loss (1.000)")
    assert kept_epoch(history_of(3, val_loss=np.nan), by_loss) == (None, "")  # it diverged


def test_the_losses_are_called_what_the_config_makes_them():
    loss = {"weight": None, "focus": 2, "weigh_validation": True}
    focal = config_of(loss=loss, dropout=0, augment={"flip": 1})
    assert loss_words(focal) == ("focal, unweighted, augmented", "focal, unweighted")


def test_a_whole_history_is_needed():
    with pytest.raises(SkinlesionError, match="lacks val_loss, lr; expected epoch, train_loss"):
        learning_curves(history_of(3).drop(columns=["val_loss", "lr"]), config_of(), "")
    with pytest.raises(SkinlesionError, match="has no rows; expected epoch"):
        learning_curves(history_of(0), config_of(), "")
