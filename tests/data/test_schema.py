"""What a data set is made of is declared, and a declaration that cannot be is refused."""

import pytest
from omegaconf import OmegaConf

from skinlesion.data.encoding import Category, Number
from skinlesion.data.ham10000 import CLASSES, PROPERTIES
from skinlesion.data.schema import Schema
from skinlesion.errors import SkinlesionError


def declared(**changes):
    return {
        "tables": ["t.csv"],
        "classes": ["a", "b"],
        "columns": {"image": "file", "lesion": None, "label": "class"},
        "properties": {"site": {"values": ["x", "y"]}, "size": {"range": [0, 9], "column": "mm"}},
    } | changes


def properties(**options):
    return declared(properties={"k": options})


def columns(**options):
    return declared(columns=declared()["columns"] | options)


def test_the_constants_of_ham10000_are_those_of_its_config(ham10000):
    schema = Schema.from_config(ham10000)
    assert tuple(schema.classes) == CLASSES
    assert tuple(known.size for known in schema.untrained.values()) == PROPERTIES
    assert schema.wanted == ["lesion_id", "image_id", "dx", "age", "sex", "localization"]


def test_a_declaration_is_read():
    schema = Schema.from_config(OmegaConf.create(declared()))
    assert schema == Schema.from_config(declared())
    assert schema.untrained == {"site": Category(("x", "y", "unknown")), "size": Number(0, 9)}
    assert schema.wanted == ["file", "class", "site", "mm"]
    one_hot = Schema.from_config(columns(label=None, lesion="spot"))
    assert one_hot.wanted == ["spot", "file", "a", "b", "site", "mm"]


@pytest.mark.parametrize(
    ("values", "read"),
    [([1, 2.5], ("1", "2.5", "unknown")), (["Unknown", " z "], ("unknown", "z"))],
)
def test_names_that_are_numbers_are_text_and_unknown_keeps_its_place(values, read):
    schema = Schema.from_config(properties(values=values))
    assert schema.untrained["k"] == Category(read)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (declared(classes=["a"]), "data.classes: .* at least 2 items"),
        (declared(classes="a"), "data.classes=a: expected a valid list"),
        (declared(classes=["a", "b", "a"]), "data.classes.* a more than once"),
        (declared(classes=["nv", "NV"]), "nv, NV more than once.* not in capitals alone"),
        (declared(classes=["a", "label"]), "data.classes.* label cannot be a name here"),
        (declared(classes=[True, False]), r"data.classes.0=True: expected a name \(yes and no"),
        (declared(classes=["a", " "]), "data.classes.1= : expected a name"),
        (declared(tables=[]), "data.tables.* at least 1 item"),
        (columns(image=None), "data.columns.image=None: expected a name"),
        (declared(columns={"image": "i", "label": "l"}), "data.columns.lesion: expected a value"),
        (columns(patient="p"), "data.columns.patient: there is no such key. Did you mean data.col"),
        (columns(lesion_missing="drop"), "lesion_missing=drop: expected 'error' or 'own'"),
        (properties(), "data.properties.k.* expected one of range: .* found neither"),
        (properties(range=[0, 1], values=["x"]), "expected one of range: .* found both"),
        (properties(range=[9, 0]), "data.properties.k.* range: expected two numbers"),
        (properties(range=[0]), "data.properties.k.range.1: expected a value"),
        (properties(range=[0, "far"]), "data.properties.k.range.1=far: expected a valid number"),
        (properties(values=[]), "data.properties.k.values.* at least 1 item"),
        (properties(value=["x"]), "data.properties.k.value: there is no such key"),
        (declared(properties={"k": None}), "data.properties.k=None: expected"),
        (declared(properties={"dx": {"range": [0, 1]}}), "data.properties.* dx cannot be a name"),
        (declared(properties=["age"]), "data.properties.* expected a valid dictionary"),
        (declared(limit=0), "data.limit=0: expected greater than or equal to 1"),
        (declared(limti=9), "data.limti: there is no such key. Did you mean data.limit"),
        ({"tables": ["t"]}, "data.classes: expected a value; data.columns: .*; data.properties: "),
    ],
    ids=repr,
)
def test_a_declaration_that_cannot_be_is_refused_in_one_line(data, message):
    with pytest.raises(SkinlesionError, match=message) as refusal:
        Schema.from_config(data)
    assert "\n" not in str(refusal.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(SkinlesionError, match=r"data\.classes.*; data\.properties\.k"):
        Schema.from_config(properties() | {"classes": ["a"]})
