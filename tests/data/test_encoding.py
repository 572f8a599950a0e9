"""Metadata become numbers; HAM10000's become 21: age, 1 + 3 of sex, 1 + 15 of localization."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from skinlesion.data.encoding import Category, MetadataEncoder, Number
from skinlesion.data.schema import Schema
from skinlesion.errors import SkinlesionError

# The authors' StringLookup put what training has not seen first, then np.unique's order.
SEX = ["other", "female", "male", "unknown"]
LOCALIZATION = [
    *("other", "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand"),
    *("lower extremity", "neck", "scalp", "trunk", "unknown", "upper extremity"),
]


def rows(*cells):
    return pd.DataFrame(cells, columns=["age", "sex", "localization"])


@pytest.fixture
def untrained(ham10000):
    return Schema.from_config(ham10000).untrained


@pytest.fixture
def training():
    """Every sex and localization, at the ages 20, 40 and 60: mean 40, variance 800 / 3."""
    return rows(
        *(((20, 40, 60)[i % 3], SEX[1 + i % 3], place) for i, place in enumerate(LOCALIZATION[1:]))
    )


@pytest.fixture
def encoder(training, untrained):
    return MetadataEncoder.fit(training, untrained)


def ones(encoded):
    assert set(encoded[1:]) <= {0, 1}
    return np.flatnonzero(encoded[1:]).tolist()


def test_age_is_standardised_by_the_population_of_the_training_rows(encoder):
    encoded = encoder.encode(rows(*((age, "male", "back") for age in (20, 40, 60, 90, np.nan))))
    assert encoded.shape == (5, 21)
    assert encoded.dtype == np.float32
    # 20 / sqrt(800 / 3) = sqrt(1.5); a missing age counts as the mean.
    assert encoded[:, 0] == pytest.approx([-1.2247449, 0, 1.2247449, 3.0618622, 0])


def test_each_category_has_its_column(encoder):
    for sex, place in itertools.product(SEX[1:], LOCALIZATION[1:]):
        encoded = encoder.encode(rows((40, sex, place)))[0]
        assert ones(encoded) == [SEX.index(sex), 4 + LOCALIZATION.index(place)]


def test_what_training_has_not_seen_goes_into_the_first_column(training, untrained):
    seen = training[(training["sex"] != "male") & (training["localization"] != "ear")]
    encoder = MetadataEncoder.fit(seen, untrained)
    for sex, place in (("male", "ear"), ("neither", "left elbow"), (None, np.nan)):
        assert ones(encoder.encode(rows((40, sex, place)))[0]) == [0, 4]
    # What it has seen keeps its column.
    assert ones(encoder.encode(rows((40, "female", "face")))[0]) == [1, 4 + 6]


def test_missing_ages_are_not_learnt_from(training, untrained):
    for ages in ((50, 50), (np.nan, np.nan)):  # all alike
        frame = rows(*((years, "male", "back") for years in ages))
        assert MetadataEncoder.fit(frame, untrained).encode(frame)[:, 0].tolist() == [0, 0]
    with_gaps = pd.concat([training, rows((np.nan, "male", "back"))])
    known = MetadataEncoder.fit(with_gaps, untrained).properties["age"]
    assert known == Number(0, 120, mean=40, std=pytest.approx(np.sqrt(800 / 3)))


@pytest.mark.parametrize("missing", ["category", "zero"])
def test_the_encoder_goes_through_json_unchanged(training, untrained, missing):
    seen = training[training["localization"] != "ear"]
    encoder = MetadataEncoder.fit(seen, untrained, missing)
    restored = MetadataEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert restored == encoder
    np.testing.assert_array_equal(restored.encode(training), encoder.encode(training))


def test_the_real_ages_have_the_statistics_that_the_authors_had(real_table, untrained):
    frame = real_table[real_table["age"].notna()]
    assert len(frame) == 9_958
    encoder = MetadataEncoder.fit(frame, untrained)
    age = encoder.properties["age"]
    assert age == Number(0, 120, pytest.approx(51.864, abs=5e-4), pytest.approx(16.968, abs=5e-4))
    encoded = encoder.encode(frame)
    # other, female, male, unknown; and the localizations that nobody noted
    assert encoded[:, 1:5].sum(0).tolist() == [0, 4548, 5400, 10]
    assert encoded[:, 5].sum() == 0
    assert encoded[:, 5 + LOCALIZATION.index("unknown")].sum() == 187


def test_what_is_missing_can_be_zeros(training, untrained):
    encoder = MetadataEncoder.fit(training, untrained, missing="zero")
    encoded = encoder.encode(rows((np.nan, "unknown", "unknown"), (40, "male", "mars")))
    assert not encoded[0].any()
    assert ones(encoded[1]) == [SEX.index("male")]  # and nothing for a place never seen
    known = rows((60, "female", "neck"))
    expected = MetadataEncoder.fit(training, untrained).encode(known)
    np.testing.assert_array_equal(encoder.encode(known), expected)


# --- other metadata -----------------------------------------------------------------------------

OTHER = {"site": Category(("Left Arm", "Right Arm", "unknown")), "diameter": Number(0.5, 80.0)}
GIVEN = pd.DataFrame({"site": ["Left Arm", "unknown"], "diameter": [2.0, 6.0]})


def test_other_properties_have_features_in_the_order_of_their_declaration():
    encoder = MetadataEncoder.fit(GIVEN, OTHER)
    assert encoder.sizes == (4, 1)
    # unseen, Left Arm, Right Arm, unknown, and the diameter: mean 4, standard deviation 2
    assert encoder.encode(GIVEN).tolist() == [[0, 1, 0, 0, -1], [0, 0, 0, 1, 1]]
    assert encoder.read([{"site": "left arm"}])["site"] == ["Left Arm"]
    # What checkpoints and exported files hold.
    assert encoder.to_dict() == {
        "properties": {
            "site": {
                "values": ["Left Arm", "Right Arm", "unknown"],
                "seen": ["Left Arm", "unknown"],
            },
            "diameter": {"low": 0.5, "high": 80.0, "mean": 4.0, "std": 2.0},
        },
        "missing": "category",
    }


def test_without_properties_there_are_rows_of_no_numbers():
    encoder = MetadataEncoder.fit(GIVEN, {})
    assert encoder.encode(GIVEN).shape == encoder.encode_typed([{}, {}]).shape == (2, 0)
    with pytest.raises(SkinlesionError, match="age: this model knows no metadata, so give none"):
        encoder.read([{"age": 4}])


@pytest.mark.parametrize("nothing", [None, "", "  ", np.nan, pd.NA, " Unknown"])
def test_what_nobody_typed_is_missing(encoder, nothing):
    row = {"age": nothing, "sex": nothing, "localization": nothing}
    typed = encoder.read([row, {}])
    assert np.isnan(typed["age"]).all()
    assert typed["sex"] == typed["localization"] == ["unknown"] * 2


@pytest.mark.parametrize(
    ("name", "typed", "meant"),
    [
        ("age", " 45.5 ", 45.5),
        ("age", np.int64(0), 0.0),
        ("age", 120, 120.0),
        ("sex", " Male", "male"),
        ("localization", "LOWER EXTREMITY", "lower extremity"),
        ("grade", 3, "3"),
        ("grade", 3.0, "3"),
        ("grade", "1", "1.0"),
        ("grade", "1.0", "1.0"),
    ],
)
def test_what_a_person_types_is_understood(untrained, name, typed, meant):
    encoder = MetadataEncoder(untrained | {"grade": Category(("1.0", "2", "3", "unknown"))})
    assert encoder.read([{name: typed}])[name] == [meant]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ({"age": "old"}, "age=old: expected a number from 0 to 120."),
        ({"age": 121}, "age=121: expected a number from 0 to 120."),
        ({"age": True}, "age=True: expected a number from 0 to 120."),
        ({"age": "inf"}, "age=inf: expected a number from 0 to 120."),
        ({"sex": "m"}, "sex=m: expected one of female, male, unknown."),
        ({"localization": "bakc"}, "upper extremity. Did you mean back?"),
        ({"localisation": "back"}, "localization. Did you mean localization?"),
        ({"smoker": "yes"}, "smoker: there is no such property, expected one of age, sex, "),
    ],
)
def test_what_cannot_be_is_named_with_what_was_expected(encoder, typed, message):
    with pytest.raises(SkinlesionError) as caught:
        encoder.read([{}, typed])
    assert message in str(caught.value)
