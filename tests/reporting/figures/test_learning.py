"""Learning curves: what the lines are, and which epoch was kept."""

import numpy as np
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.reporting.figures.learning import kept_epoch, learning_curves, loss_words
from tests.reporting.figures.conftest import config_of, history_of, texts


def panels(page):
    return {axes.get_title(loc="left").split(" (")[0]: axes for axes in page.figure.axes}


def test_the_losses_stand_apart_and_say_what_they_are():
    page = learning_curves(history_of(60), config_of(), "a run")
    titles = [axes.get_title(loc="left") for axes in page.figure.axes]
    assert titles[:2] == [
        "training loss (classes weighted, dropout 0.5)",
        "validation loss (unweighted)",
    ]
    shown = panels(page)
    np.testing.assert_allclose(shown["training loss"].lines[0].get_ydata()[[0, -1]], [2, 1])
    np.testing.assert_allclose(shown["validation loss"].lines[0].get_ydata()[[0, -1]], [0.9, 0.7])
    assert any("compare their shapes, not their heights" in t for t in [" ".join(texts(page))])


def test_accuracy_has_a_line_for_each_of_three():
    accuracy = panels(learning_curves(history_of(5), config_of(), ""))["accuracy"]
    labels = [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert labels == ["training", "validation", "balanced"]
    assert [line.get_ydata()[-1] for line in accuracy.lines[:3]] == pytest.approx([0.9, 0.7, 0.5])


@pytest.mark.parametrize(("epochs", "last"), [(1, 0.3), (2, 0.7), (60, 0.7)])
def test_the_kept_epoch_is_marked_in_every_panel(epochs, last):
    page = learning_curves(history_of(epochs), config_of(), "a run")
    unit = "epoch" if epochs == 1 else "epochs"
    heading = f"a run · {epochs} {unit}; kept: epoch {epochs}, of the highest validation accuracy"
    assert f"{heading} ({last:.3f})" in " ".join(texts(page))
    assert [axes.lines[-1].get_xdata()[0] for axes in page.figure.axes] == [epochs] * 4


def test_the_first_of_equally_good_epochs_is_kept_by_what_selects_the_checkpoint():
    history = history_of(5).assign(
        val_accuracy=[0.1, 0.6, 0.5, 0.6, 0.2], val_loss=[3.0, 2, 1, 1, 2]
    )
    assert kept_epoch(history, config_of()) == (1, "of the highest validation accuracy (0.600)")
    by_loss = config_of(callbacks={"best": {"monitor": "val_loss", "mode": "min"}})
    assert kept_epoch(history, by_loss) == (2, "of the lowest validation loss (1.000)")


def test_an_epoch_whose_loss_is_no_number_is_not_kept():
    by_loss = config_of(callbacks={"best": {"monitor": "val_loss", "mode": "min"}})
    assert kept_epoch(history_of(3).assign(val_loss=[2.0, 1.0, np.nan]), by_loss)[0] == 1
    assert kept_epoch(history_of(3).assign(val_loss=np.nan), by_loss) == (None, "")


def test_an_unknown_selection_marks_no_epoch():
    config = config_of(callbacks={"best": {"monitor": "val_kappa", "mode": "max"}})
    page = learning_curves(history_of(3), config, "a run")
    assert "a run · 3 epochs" in texts(page)
    assert panels(page)["learning rate"].lines[-1].get_xdata().tolist() == [1, 2, 3]


def test_the_losses_are_called_what_the_config_makes_them():
    focal = config_of(
        loss={"weight": None, "focus": 2, "weigh_validation": True}, dropout=0, augment={"flip": 1}
    )
    assert loss_words(focal) == ("focal, unweighted, augmented", "focal, unweighted")
    silent = config_of(loss={"weight": "balanced", "weigh_validation": None})
    assert loss_words(silent)[1] == "unweighted"
    alike = config_of(loss={"weight": [1, 5], "weigh_validation": True}, dropout=0)
    assert loss_words(alike) == ("classes weighted", "classes weighted")


def test_the_learning_rates_of_a_plateau_are_named():
    history = history_of(4).assign(lr=[1e-3, 1e-3, 2e-4, 8.000000000000001e-6])
    rate = panels(learning_curves(history, config_of(), ""))["learning rate"]
    assert [t.get_text() for t in rate.get_yticklabels()] == ["8e-06", "0.0002", "0.001"]
    assert rate.get_yscale() == "log"


def test_a_whole_history_is_needed():
    with pytest.raises(SkinlesionError, match="lacks val_loss, lr; its columns are epoch, "):
        learning_curves(history_of(3).drop(columns=["val_loss", "lr"]), config_of(), "")
    with pytest.raises(SkinlesionError, match="no rows"):
        learning_curves(history_of(0), config_of(), "")
