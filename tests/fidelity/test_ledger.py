"""Every parameter that we have and Keras has not is counted, and so is the other way round.

What Keras has was measured on Keras; skinlesion/fidelity/keras_backbones.json names the source.
"""

from pathlib import Path

import pytest

from skinlesion.cli import main
from skinlesion.errors import SkinlesionError
from skinlesion.fidelity import ledger
from skinlesion.fidelity.cases import pins

BACKBONES = ledger.backbones()
LARGE, SMALL = BACKBONES["mobilenet_v3_large"], BACKBONES["mobilenet_v3_small"]
PRINTED = Path(__file__).parent / "fixtures/ledger.txt"


def test_prints_every_network_and_every_cut_of_table_9(capsys):
    assert main(["ledger"]) == 0
    assert capsys.readouterr().out == PRINTED.read_text()


def test_the_authors_trained_nine_backbones_and_cut_one_at_eight_places():
    assert len(pins()) == 9
    assert pins().keys() < BACKBONES.keys()
    rows = ["[:270]", "[:266]", "[:260]", "[:251]", "[:246]", "[:241]", "[:240]", "[:230]"]
    assert [pin["slice"] for pin in pins()["mobilenet_v3_large"]["cuts"]] == rows


@pytest.mark.parametrize("name", pins())
def test_the_printed_trainable_part_is_the_whole_without_statistics_and_age(name):
    for pin in pins()[name]["cuts"]:
        if "network" in pin:
            apart = pin["network"]["parameters"] - pin["network"]["trainable"]
            assert apart == pin["statistics"] + 3


def test_the_best_row_of_table_9_has_the_authors_parameters():
    line = ledger.count(LARGE | {"cut": "blocks.5.2.bn1"})
    assert line["Keras"] == 2_666_922  # printed for [:240]
    assert line["agrees"]


def test_released_attention_has_no_gamma_and_otherwise_the_same():
    line = ledger.count(SMALL, attention="released")
    assert line["gamma"] == 0
    assert line["agrees"]


def test_a_network_without_attention_is_not_explained():
    line = ledger.count(SMALL, attention="none")
    # 9 * 576 * 16 + 16 of the attention, and its half of the dense layer: 7 * 4 * 4 * 576
    assert line["unexplained"] == -(82_960 + 64_512)
    assert not line["agrees"]


def test_another_shape_does_not_agree():
    line = ledger.count(SMALL | {"input_size": 96}, attention=None)
    assert line["unexplained"] == 0
    assert line["C x h x w"] == "576 x 3 x 3"
    assert not line["agrees"]


def test_a_disagreement_is_an_error_of_the_command(monkeypatch, capsys):
    line = ledger.count(SMALL, attention="none")
    monkeypatch.setattr(ledger, "count", lambda fields, attention="": line)
    with pytest.raises(SystemExit, match="error: a shape or a parameter is not Keras'"):
        main(["ledger"])
    assert "-147,472" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["resnet50", "resnet18"])
def test_a_cut_without_a_pin_is_refused(name):
    with pytest.raises(SkinlesionError, match=rf"{name} cut at layer3 has no pin: say in .*json"):
        ledger.count(BACKBONES["resnet50"] | {"name": name, "cut": "layer3"})
