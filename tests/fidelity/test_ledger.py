"""Every parameter that we have and Keras has not is counted, and so is the other way round.

What Keras has was measured on Keras; skinlesion/fidelity/keras_backbones.json names the source.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.fidelity import ledger

ROOT = Path(__file__).parents[2]
BACKBONES = ledger.backbones()
every_backbone = pytest.mark.parametrize("name", sorted(BACKBONES))


@pytest.fixture(scope="module")
def small():
    """The entry of the smallest network."""
    return ledger.network_entry(BACKBONES["mobilenet_v3_small"])


@every_backbone
def test_every_backbones_file_has_a_pin(name):
    ledger.find_pin(name, BACKBONES[name]["cut"])


def test_a_backbone_without_a_pin_is_refused():
    with pytest.raises(SkinlesionError, match=r"resnet18 cut at layer4 has no pin: say in .*json"):
        ledger.network_entry(BACKBONES["resnet50"] | {"name": "resnet18", "cut": "layer4"})
    with pytest.raises(SkinlesionError, match="resnet50 cut at layer3 has no pin"):
        ledger.network_entry(BACKBONES["resnet50"] | {"cut": "layer3"})


def test_nine_were_trained_by_the_authors():
    derived = {name for name in BACKBONES if "derived" in ledger.pins()[name]}
    assert derived == {"mobilenet_v1", "vgg16"}
    assert len(BACKBONES) - len(derived) == 9


@every_backbone
def test_network_has_keras_shape_and_no_unexplained_parameter(name):
    entry = ledger.network_entry(BACKBONES[name])
    assert entry.shape == tuple(entry.pin["shape"])
    assert entry.unexplained == 0
    assert entry.agrees
    assert entry.causes["statistics"] == -entry.pin["statistics"]
    assert entry.causes["gamma"] == 1
    assert entry.causes["age"] == -3
    # The printed trainable part is the whole without statistics and age.
    trainable = entry.pin["network"]["trainable"]
    assert entry.theirs - trainable == entry.pin["statistics"] + 3


@pytest.mark.parametrize(
    ("name", "cause", "parameters"),
    [
        ("resnet50", "biases", -26_560),
        ("resnet152", "biases", -69_568),
        ("inception_resnet_v2", "scales", 27_200),
    ],
)
def test_frameworks_differ_by_what_is_known_of_them(name, cause, parameters):
    causes = ledger.trunk_entry(BACKBONES[name]).causes
    assert causes.keys() == {"statistics", cause}
    assert causes[cause] == parameters


TABLE_9 = ["[:270]", "[:266]", "[:260]", "[:251]", "[:246]", "[:241]", "[:240]", "[:230]"]


def test_table_9_has_eight_cuts():
    assert [pin["slice"] for pin in ledger.pins()["mobilenet_v3_large"]["cuts"]] == TABLE_9


@pytest.mark.parametrize("row", range(8), ids=TABLE_9)
def test_cuts_of_table_9(row):
    pin = ledger.pins()["mobilenet_v3_large"]["cuts"][row]
    entry = ledger.trunk_entry(BACKBONES["mobilenet_v3_large"] | {"cut": pin["cut"]})
    assert entry.agrees
    assert entry.causes == {"statistics": -pin["statistics"]}


def test_the_best_row_of_table_9_has_the_authors_parameters():
    fields = BACKBONES["mobilenet_v3_large"] | {"cut": "blocks.5.2.bn1"}
    entry = ledger.network_entry(fields)
    assert entry.theirs == 2_666_922  # printed for [:240]
    assert entry.agrees


def test_released_attention_has_no_gamma_and_otherwise_the_same():
    entry = ledger.network_entry(BACKBONES["mobilenet_v3_small"], attention="released")
    assert entry.causes["gamma"] == 0
    assert entry.agrees


def test_a_network_without_attention_is_not_explained():
    entry = ledger.network_entry(BACKBONES["mobilenet_v3_small"], attention="none")
    # 9 * 576 * 16 + 16 of the attention, and its half of the dense layer: 7 * 4 * 4 * 576
    assert entry.unexplained == -(82_960 + 64_512)
    assert not entry.agrees


def test_another_shape_does_not_agree(small):
    assert small.agrees
    assert not dataclasses.replace(small, shape=(576, 14, 14)).agrees


def test_the_command_prints_every_backbone_and_every_cut():
    done = subprocess.run(
        [sys.executable, "-m", "skinlesion.fidelity.ledger"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    for name in set(BACKBONES) - {"mobilenet_v1", "vgg16"}:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert line.endswith(" 0")
    assert [line.split()[0] for line in lines if line.lstrip().startswith("[:")] == TABLE_9
    assert lines[-1] == "No parameter is unexplained."
