"""Figures: what they say, and that they are files of the expected size."""

import struct

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation import figures
from skinlesion.evaluation.metrics import evaluate
from skinlesion.evaluation.predictions import write_predictions

CLASSES = ("akiec", "bcc", "nv")
Y = np.array([0, 0, 1, 1, 2, 2])
PROBABILITIES = np.array(
    [[8, 1, 1], [2, 5, 3], [1, 8, 1], [3, 6, 1], [1, 1, 8], [5, 1, 4]], dtype=float
)
PROBABILITIES /= 10


def history(epochs):
    return pd.DataFrame(
        {
            "epoch": range(epochs),
            "train_loss": np.linspace(2, 1, epochs),
            "train_accuracy": np.linspace(0.3, 0.9, epochs),
            "val_loss": np.linspace(2, 1.5, epochs),
            "val_accuracy": np.linspace(0.3, 0.7, epochs),
            "val_balanced_accuracy": np.linspace(0.2, 0.5, epochs),
            "lr": 1e-3,
            "seconds": 10.0,
        }
    )


def png_size(path):
    """Width and height from the PNG's header."""
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


def legend_texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_confusion_figure_writes_counts_and_colours_shares():
    figure = figures.confusion_figure(evaluate(Y, PROBABILITIES, CLASSES), "a run")
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["1", "1", "0", "0", "2", "0", "1", "0", "1"]
    shares = axes.images[0].get_array()
    assert shares.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0.5, 0, 0.5]]
    assert axes.get_title() == "a run"


def test_confusion_figure_of_a_class_absent_from_the_labels():
    figure = figures.confusion_figure(evaluate(Y[:4], PROBABILITIES[:4], CLASSES), "")
    assert figure.axes[0].images[0].get_array()[2].tolist() == [0, 0, 0]


def test_roc_legend_has_the_auc_of_each_class():
    figure = figures.roc_figure(Y, PROBABILITIES, CLASSES, "a run")
    # akiec: positives .8 and .2 against .1 .3 .1 .5: 4 + 2 of 8 pairs; bcc: .8 and .6 beat all;
    # nv: .8 and .4 beat .1 .3 .1 .1
    assert legend_texts(figure.axes[0].get_legend()) == [
        "akiec  AUC 0.750",
        "bcc  AUC 1.000",
        "nv  AUC 1.000",
    ]


def test_roc_legend_names_the_class_that_has_no_curve():
    absent = figures.roc_figure(Y[:4], PROBABILITIES[:4], CLASSES, "")
    assert legend_texts(absent.axes[0].get_legend())[2] == "nv  absent: no AUC"
    alone = figures.roc_figure(Y[:2], PROBABILITIES[:2], CLASSES, "")
    assert legend_texts(alone.axes[0].get_legend())[0] == "akiec  the only class: no AUC"


def test_no_two_of_the_first_21_curves_look_alike():
    classes = tuple(f"class{c}" for c in range(21))
    figure = figures.roc_figure(np.arange(21), np.eye(21), classes, "")
    lines = figure.axes[0].lines[1:]
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 21


@pytest.mark.parametrize("epochs", [1, 2, 60])
def test_learning_curves_mark_the_best_epoch(epochs, tmp_path):
    figure = figures.learning_curves(history(epochs), "a run")
    (legend,) = figure.legends
    expected = {1: "best epoch 0: 0.300", 2: "best epoch 1: 0.700", 60: "best epoch 59: 0.700"}
    assert legend_texts(legend)[-1] == expected[epochs]
    assert len(figure.axes) == 3
    assert figure.axes[2].get_yscale() == "log"
    assert png_size(figures.save(figure, tmp_path / "curves.png")) == (960, 900)


def test_the_first_of_equally_good_epochs_is_the_best():
    figure = figures.learning_curves(history(5).assign(val_accuracy=[0.1, 0.6, 0.5, 0.6, 0.2]), "")
    assert legend_texts(figure.legends[0])[-1] == "best epoch 1: 0.600"


def test_learning_curves_need_a_whole_history():
    with pytest.raises(SkinlesionError, match="lacks val_loss, lr; its columns are epoch, "):
        figures.learning_curves(history(3).drop(columns=["val_loss", "lr"]), "")
    with pytest.raises(SkinlesionError, match="no rows"):
        figures.learning_curves(history(0), "")


@pytest.fixture
def run_files(tmp_path):
    rows = pd.DataFrame({"image_id": range(6), "lesion_id": 0, "label": np.array(CLASSES)[Y]})
    rows = rows.join(pd.DataFrame(PROBABILITIES, columns=CLASSES))
    rows = pd.concat([rows.assign(split="val"), rows.assign(split="test")])
    columns = ["image_id", "lesion_id", "split", "label", *CLASSES]
    write_predictions(rows[columns], tmp_path / "predictions.csv")
    history(4).to_csv(tmp_path / "history.csv", index=False)
    return tmp_path


def test_draw_run_figures_draws_every_split_and_leaves_nothing_else(run_files):
    folder = run_files / "figures"
    settings = dict(matplotlib.rcParams)
    paths = figures.draw_run_figures(
        run_files / "predictions.csv", run_files / "history.csv", folder
    )
    assert {path.name: png_size(path) for path in paths} == {
        "confusion_matrix_val.png": (810, 660),
        "roc_val.png": (750, 720),
        "confusion_matrix_test.png": (810, 660),
        "roc_test.png": (750, 720),
        "learning_curves.png": (960, 900),
    }
    assert sorted(folder.iterdir()) == sorted(paths)
    assert dict(matplotlib.rcParams) == settings
    assert pyplot.get_fignums() == []


def test_draw_run_figures_says_which_history_is_missing(run_files):
    with pytest.raises(SkinlesionError, match=r"other\.csv cannot be read as a history"):
        figures.draw_run_figures(
            run_files / "predictions.csv", run_files / "other.csv", run_files / "figures"
        )
