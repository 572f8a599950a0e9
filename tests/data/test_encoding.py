"""Metadata become numbers; HAM10000's become 21: age, 1 + 3 of sex, 1 + 15 of localization."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from skinlesion.data.encoding import MetadataEncoder, Number
from skinlesion.data.schema import Schema, Values
from skinlesion.errors import SkinlesionError

CONF = Path(__file__).resolve().parents[2] / "conf"
HAM10000 = Schema.from_config(OmegaConf.load(CONF / "data" / "ham10000.yaml"))

# The authors' StringLookup put what training has not seen first, then np.unique's order.
SEX = ["other", "female", "male", "unknown"]
LOCALIZATION = [
    *("other", "abdomen", "acral", "back", "chest", "ear", "face", "foot", "genital", "hand"),
    *("lower extremity", "neck", "scalp", "trunk", "unknown", "upper extremity"),
]


def rows(*cells: tuple[float, str, str]) -> pd.DataFrame:
    return pd.DataFrame(cells, columns=["age", "sex", "localization"])


def fit(frame: pd.DataFrame, missing: str = "category") -> MetadataEncoder:
    return MetadataEncoder.fit(frame, HAM10000.properties, missing)


def age(encoder: MetadataEncoder) -> Number:
    found = encoder.properties["age"]
    assert isinstance(found, Number)
    return found


@pytest.fixture
def training() -> pd.DataFrame:
    """Every sex and localization, at the ages 20, 40 and 60: mean 40, variance 800 / 3."""
    return rows(
        *(((20, 40, 60)[i % 3], SEX[1 + i % 3], place) for i, place in enumerate(LOCALIZATION[1:]))
    )


@pytest.fixture
def encoder(training: pd.DataFrame) -> MetadataEncoder:
    return fit(training)


def ones(encoded: np.ndarray) -> list[int]:
    assert set(encoded[1:]) <= {0, 1}
    return np.flatnonzero(encoded[1:]).tolist()


def test_there_are_21_numbers_a_row(encoder: MetadataEncoder, training: pd.DataFrame) -> None:
    encoded = encoder.encode(training)
    assert encoded.shape == (15, 21)
    assert encoded.dtype == np.float32


def test_age_is_standardised_by_the_population_of_the_training_rows(
    encoder: MetadataEncoder,
) -> None:
    encoded = encoder.encode(
        rows((20, "male", "back"), (40, "male", "back"), (60, "male", "back"), (90, "male", "back"))
    )
    # 20 / sqrt(800 / 3) = sqrt(1.5)
    assert encoded[:, 0] == pytest.approx([-1.2247449, 0, 1.2247449, 3.0618622])


@pytest.mark.parametrize("sex", SEX[1:])
@pytest.mark.parametrize("place", LOCALIZATION[1:])
def test_each_category_has_its_column(encoder: MetadataEncoder, sex: str, place: str) -> None:
    encoded = encoder.encode(rows((40, sex, place)))[0]
    assert ones(encoded) == [SEX.index(sex), 4 + LOCALIZATION.index(place)]


def test_what_training_has_not_seen_goes_into_the_first_column(training: pd.DataFrame) -> None:
    seen = training[(training["sex"] != "male") & (training["localization"] != "ear")]
    encoder = fit(seen)
    assert ones(encoder.encode(rows((40, "male", "ear")))[0]) == [0, 4]
    assert ones(encoder.encode(rows((40, "neither", "left elbow")))[0]) == [0, 4]
    # What it has seen keeps its column.
    assert ones(encoder.encode(rows((40, "female", "face")))[0]) == [1, 4 + 6]


def test_a_missing_sex_or_localization_is_no_error(encoder: MetadataEncoder) -> None:
    assert ones(encoder.encode(rows((40, None, np.nan)))[0]) == [0, 4]  # type: ignore[arg-type]


def test_a_missing_age_counts_as_the_mean(encoder: MetadataEncoder, training: pd.DataFrame) -> None:
    assert encoder.encode(rows((np.nan, "male", "back")))[0, 0] == 0
    with_gaps = pd.concat([training, rows((np.nan, "male", "back"))])
    assert age(fit(with_gaps)).mean == pytest.approx(40)
    assert age(fit(with_gaps)).std == pytest.approx(np.sqrt(800 / 3))


@pytest.mark.parametrize("ages", [(50, 50), (np.nan, np.nan)])
def test_ages_that_are_all_alike_or_all_missing_encode_to_zero(ages: tuple[float, float]) -> None:
    frame = rows(*((years, "male", "back") for years in ages))
    assert fit(frame).encode(frame)[:, 0].tolist() == [0, 0]


def test_the_encoder_goes_through_json_unchanged(training: pd.DataFrame) -> None:
    seen = training[training["localization"] != "ear"]
    encoder = fit(seen)
    restored = MetadataEncoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert restored == encoder
    np.testing.assert_array_equal(restored.encode(training), encoder.encode(training))


def test_the_dictionary_holds_plain_types_only(encoder: MetadataEncoder) -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(plain(item) for item in value.values())
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return type(value) in (float, str)

    assert plain(encoder.to_dict())


def test_the_real_ages_have_the_statistics_that_the_authors_had(real_table: pd.DataFrame) -> None:
    frame = real_table[real_table["age"].notna()]
    assert len(frame) == 9_958
    encoder = fit(frame)
    assert age(encoder).mean == pytest.approx(51.864, abs=5e-4)
    assert age(encoder).std == pytest.approx(16.968, abs=5e-4)
    encoded = encoder.encode(frame)
    # other, female, male, unknown; and the localizations that nobody noted
    assert encoded[:, 1:5].sum(0).tolist() == [0, 4548, 5400, 10]
    assert encoded[:, 5].sum() == 0
    assert encoded[:, 5 + LOCALIZATION.index("unknown")].sum() == 187


def test_what_is_missing_can_be_zeros(training: pd.DataFrame) -> None:
    encoder = fit(training, missing="zero")
    encoded = encoder.encode(rows((np.nan, "unknown", "unknown"), (40, "male", "mars")))
    assert not encoded[0].any()
    assert ones(encoded[1]) == [SEX.index("male")]  # and nothing for a place never seen
    known = rows((60, "female", "neck"))
    by_category = fit(training).encode(known)
    np.testing.assert_array_equal(encoder.encode(known), by_category)
    assert MetadataEncoder.from_dict(json.loads(json.dumps(encoder.to_dict()))) == encoder


# --- other metadata -----------------------------------------------------------------------------


OTHER = Schema.from_config(
    {
        "tables": ["t"],
        "classes": ["a", "b"],
        "columns": {"image": "i", "lesion": None, "label": "l"},
        "properties": {
            "site": {"values": ["Left Arm", "Right Arm"]},
            "diameter": {"range": [0.5, 80]},
        },
    }
)
GIVEN = pd.DataFrame({"site": ["Left Arm", "unknown"], "diameter": [2.0, 6.0]})


def test_other_properties_have_features_in_the_order_of_their_declaration() -> None:
    encoder = MetadataEncoder.fit(GIVEN, OTHER.properties)
    assert encoder.sizes == OTHER.sizes == (4, 1)
    # unseen, Left Arm, Right Arm, unknown, and the diameter: mean 4, standard deviation 2
    assert encoder.encode(GIVEN).tolist() == [[0, 1, 0, 0, -1], [0, 0, 0, 1, 1]]


def test_without_properties_there_are_rows_of_no_numbers() -> None:
    encoder = MetadataEncoder.fit(GIVEN, {})
    assert encoder.encode(GIVEN).shape == (2, 0)
    assert encoder.encode(encoder.frame([{}, {}])).shape == (2, 0)
    assert encoder.sizes == ()


@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan"), np.nan, pd.NA])
def test_what_nobody_typed_is_missing(encoder: MetadataEncoder, nothing: object) -> None:
    row = {"age": nothing, "sex": nothing, "localization": nothing}
    typed = encoder.frame([row, {}])
    assert typed["age"].isna().all()
    assert typed["sex"].tolist() == typed["localization"].tolist() == ["unknown"] * 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ({"age": "45"}, ("age", 45.0)),
        ({"age": " 45.5 "}, ("age", 45.5)),
        ({"age": np.int64(0)}, ("age", 0.0)),
        ({"age": 120}, ("age", 120.0)),
        ({"sex": " Male"}, ("sex", "male")),
        ({"localization": "LOWER EXTREMITY"}, ("localization", "lower extremity")),
        ({"sex": "Unknown"}, ("sex", "unknown")),
    ],
)
def test_what_a_person_types_is_understood(
    encoder: MetadataEncoder, typed: dict[str, object], meant: tuple[str, object]
) -> None:
    name, value = meant
    assert encoder.frame([typed])[name].tolist() == [value]


def test_capitals_of_the_declaration_are_kept() -> None:
    encoder = MetadataEncoder.fit(GIVEN, OTHER.properties)
    assert encoder.frame([{"site": "left arm"}])["site"].tolist() == ["Left Arm"]


def test_a_category_of_numbers_takes_numbers() -> None:
    values = {"skin_type": Values("skin_type", ("1", "2", "3", "unknown"))}
    encoder = MetadataEncoder.fit(pd.DataFrame({"skin_type": ["1", "3"]}), values)
    typed = encoder.frame([{"skin_type": value} for value in (3, 3.0, "3")])
    assert typed["skin_type"].tolist() == ["3"] * 3


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
def test_what_cannot_be_is_named_with_what_was_expected(
    encoder: MetadataEncoder, typed: dict[str, object], message: str
) -> None:
    with pytest.raises(SkinlesionError) as caught:
        encoder.frame([{}, typed])
    assert message in str(caught.value)
