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


@pytest.mark.parametrize(
    ("fields", "attention", "expected"),
    [
        (LARGE | {"cut": "blocks.5.2.bn1"}, "paper", {"Keras": 2_666_922}),  # printed for [:240]
        (SMALL, "released", {"gamma": 0}),
        # 9 * 576 * 16 + 16 of the attention, and its half of the dense layer: 7 * 4 * 4 * 576
        (SMALL, "none", {"unexplained": -(82_960 + 64_512)}),
        (SMALL | {"input_size": 96}, None, {"unexplained": 0, "C x h x w": "576 x 3 x 3"}),
    ],
    ids=["the best row of table 9", "released attention", "no attention", "another shape"],
)
def test_only_the_authors_networks_agree(fields, attention, expected):
    line = ledger.count(fields, attention=attention)
    assert line.items() >= expected.items()
    assert line["agrees"] == (attention in ("paper", "released"))


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
