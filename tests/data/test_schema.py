"""What a data set is made of is declared, and a declaration that cannot be is refused."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from skinlesion.data import ham10000
from skinlesion.data.schema import Range, Schema, Values
from skinlesion.errors import SkinlesionError

CONF = Path(__file__).resolve().parents[2] / "conf" / "data"


def declared(**changes: Any) -> dict[str, Any]:
    return {
        "tables": ["t.csv"],
        "classes": ["a", "b"],
        "columns": {"image": "file", "lesion": None, "label": "class"},
        "properties": {"site": {"values": ["x", "y"]}, "size": {"range": [0, 9], "column": "mm"}},
    } | changes


def test_the_constants_of_ham10000_are_those_of_its_config() -> None:
    schema = Schema.from_config(OmegaConf.load(CONF / "ham10000.yaml"))
    assert schema.classes == ham10000.CLASSES
    assert schema.sizes == ham10000.PROPERTIES
    assert schema.columns == ("lesion_id", "image_id", "dx", "age", "sex", "localization")


def test_a_declaration_is_read() -> None:
    schema = Schema.from_config(OmegaConf.create(declared()))
    assert schema == Schema.from_config(declared())
    assert schema.properties == {
        "site": Values("site", ("x", "y", "unknown")),
        "size": Range("mm", 0, 9),
    }
    assert schema.sizes == (4, 1)
    assert (schema.image, schema.lesion, schema.label) == ("file", None, "class")


def test_names_that_are_numbers_are_text() -> None:
    schema = Schema.from_config(declared(classes=[0, 1], properties={"k": {"values": [1, 2]}}))
    assert schema.classes == ("0", "1")
    assert schema.properties["k"] == Values("k", ("1", "2", "unknown"))


def test_unknown_keeps_its_place_among_the_values_and_loses_its_capital() -> None:
    schema = Schema.from_config(declared(properties={"k": {"values": ["Unknown", "z"]}}))
    assert schema.properties["k"] == Values("k", ("unknown", "z"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["a"]}, r"data\.classes=\['a'\]: expected at least 2 names"),
        ({"classes": "a"}, r"data\.classes=a: expected a list"),
        ({"classes": ["a", "b", "a"]}, r"data\.classes: a more than once"),
        ({"classes": ["nv", "NV"]}, r"data\.classes: nv, NV more than once.* not in capitals"),
        ({"classes": ["a", "label"]}, r"data\.classes: label cannot be a name here"),
        ({"classes": [True, False]}, r"data\.classes=True: expected a name \(yes and no need quo"),
        ({"tables": []}, r"data\.tables=\[\]: expected at least 1 name"),
        ({"columns": {"image": "i", "label": "l"}}, r"data\.columns: expected lesion too"),
        (
            {"columns": {"image": None, "lesion": None, "label": "l"}},
            r"data\.columns\.image=None: expected a name",
        ),
        (
            {"columns": {"image": "i", "lesion": None, "label": "l", "patient": "p"}},
            r"data\.columns: there is no patient, expected image, lesion, label",
        ),
        (
            {"columns": declared()["columns"] | {"lesion_missing": "drop"}},
            r"lesion_missing=drop: expected one of error, own",
        ),
        ({"properties": {"k": {}}}, r"data\.properties\.k: expected one of .* found neither"),
        (
            {"properties": {"k": {"range": [0, 1], "values": ["x"]}}},
            r"data\.properties\.k: expected one of .* found both",
        ),
        ({"properties": {"k": {"range": [9, 0]}}}, r"k\.range=\[9, 0\]: expected two numbers"),
        ({"properties": {"k": {"range": [0]}}}, r"k\.range=\[0\]: expected two numbers"),
        ({"properties": {"k": {"values": []}}}, r"k\.values=\[\]: expected at least 1 name"),
        ({"properties": {"k": {"value": ["x"]}}}, r"k: there is no value, expected range, values"),
        ({"properties": {"k": None}}, r"data\.properties\.k=None: expected names and values"),
        ({"properties": {"dx": {"range": [0, 1]}}}, r"data\.properties: dx cannot be a name here"),
        ({"properties": ["age"]}, r"data\.properties=\['age'\]: expected names and values"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SkinlesionError, match=message):
        Schema.from_config(declared(**changes))


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SkinlesionError, match=r"data\.classes.*; data\.properties\.k"):
        Schema.from_config(declared(classes=["a"], properties={"k": {}}))


def test_what_is_not_said_at_all_is_named() -> None:
    with pytest.raises(SkinlesionError, match=r"does not say its classes, properties: .*ham10000"):
        Schema.from_config({"tables": ["t"], "columns": {}})
