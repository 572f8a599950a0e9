"""From a table to what conf/data/ says of it, by the command that a person types."""

from collections.abc import Callable

import pandas as pd
import pytest
from omegaconf import OmegaConf

from skinlesion.cli import main
from skinlesion.data import download
from skinlesion.data.schema import Schema

Describe = Callable[..., str]


@pytest.fixture
def describe(tmp_path, capsys):
    """A function that writes a table and returns what is said of it."""

    def described(columns, *options):
        pd.DataFrame(columns).to_csv(tmp_path / "list.csv")  # with pandas' index
        main(["data", "describe", str(tmp_path / "list.csv"), "--image", "File", *options])
        return capsys.readouterr().out

    return described


OWN = {
    "File": [f"{n}.png" for n in range(36)],
    "Diagnosis": [("Red", "green", "No")[n // 2 % 3] for n in range(36)],
    "Spot": [f"s{n // 2}" for n in range(36)],
    "Size (mm)": ["" if n == 7 else 1 + n % 9 / 2 for n in range(36)],
    "Skin type": [("I", "II", "ii", "")[n % 4] for n in range(36)],
    "Grade": [("1", "2", "1.0")[n % 3] for n in range(36)],
    "Note": [f"note {n}" for n in range(36)],
    "Camera": ["the same"] * 36,
    "split": ["a", "b"] * 18,
    "Empty": [""] * 36,
}


def test_a_table_is_described_as_the_config_that_reads_it(describe, tmp_path):
    text = describe(OWN, "--label", "Diagnosis", "--lesion", "Spot")
    assert text.startswith("# @package _global_\n# 36 images in list.csv.\n")
    config = OmegaConf.to_container(OmegaConf.create(text))
    assert config["machine"] == {"data": str(tmp_path)}
    schema = Schema.from_config(config["data"])
    assert (schema.tables, schema.classes) == (["list"], ["green", "No", "Red"])
    assert config["data"]["properties"] == {
        "size_mm": {"column": "Size (mm)", "range": [1, 5]},
        "skin_type": {"column": "Skin type", "values": ["I", "II", "unknown"]},
        "Grade": {"values": ["1", "2", "unknown"]},
    }
    for line in (
        '    - "No" # 12',
        "    lesion: Spot # 18 lesions",
        "      # 1 missing",
        "      range: [1, 5] # found; widen it to what can be",
        "  #   Note: 36 different values, such as note 0, note 1, note 10 and 33 more",
        "  #   Camera: the same in every row",
        "  #   split: its name is taken; as `other: {column: …, …}`",
        "  #   Empty: empty",
    ):
        assert f"{line}\n" in text


def test_capitals_do_not_count_and_lesions_may_be_missing(describe):
    table = OWN | {"Spot": ["", "Unknown", *OWN["Spot"][2:]]}
    text = describe(table, "--label", "diagnosis", "--lesion", "spot")
    assert "    lesion_missing: own # 2 images: a lesion of its own each\n" in text
    assert "    label: diagnosis\n" in text


def test_a_column_for_each_class_and_any_number_of_classes(describe):
    classes = [f"c{n}" for n in range(60)]
    one_hot = {name: [float(n == i) for n in range(60)] for i, name in enumerate(classes)}
    text = describe({"File": classes} | one_hot, "--one-hot", *classes)
    data = OmegaConf.create(text).data
    assert data.classes == classes
    assert data.columns == {"image": "File", "lesion": None, "label": None}
    assert data.properties == {}
    labels = {"File": classes, "Kind": classes}
    assert OmegaConf.create(describe(labels, "--label", "Kind")).data.classes == sorted(classes)
    labels["Kind"] = ["1", "1.0", "x", "X"] * 15
    assert OmegaConf.create(describe(labels, "--label", "Kind")).data.classes == ["1", "X"]


@pytest.mark.parametrize(
    "text", ["${oc.env:HOME}", "a: b", 'say "a"', "a\n# b", "1e3", "#", "no", "{{ 7 * 7 }}", "ä"]
)
def test_whatever_a_table_holds_stays_text(describe, text):
    column = text.replace("\n", " ")
    rows = {
        "File": ["1", "2", "3", "4"],
        "Kind": [text, "x"] * 2,
        "": [1] * 4,
        f"p {column}": [text, "y"] * 2,
    }
    data = OmegaConf.to_container(OmegaConf.create(describe(rows, "--label", "Kind")), resolve=True)
    schema = Schema.from_config(data["data"])
    assert set(schema.classes) == {text, "x"}
    (declared,) = schema.properties.values()
    assert declared.column == f"p {column}"
    assert set(declared.model_dump()["values"]) == {text, "y", "unknown"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "Camera"], "--label Camera: 1 classes (the same); expected at least 2."),
        (["--one-hot", "Camera"], "--one-hot: 1 classes (Camera)"),
        (["--label", "Kind"], "columns missing: Kind. Found: File, Diagnosis"),
        (["--label", "File", "--image", "Empty"], "list.csv: rows without Empty: line 2, 3, 4"),
    ],
)
def test_what_cannot_be_a_class_is_said(describe, options, message):
    with pytest.raises(SystemExit) as refusal:
        describe(OWN, *options)
    assert message in str(refusal.value)


def test_download_fetches_into_the_folder_that_the_readme_names(monkeypatch, capsys):
    monkeypatch.setattr(download, "download", lambda *arguments, **_: list(map(str, arguments)))
    assert main(["data", "download"]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "data/ham10000",
        "https://dataverse.harvard.edu",
    ]


def test_a_demo_too_small_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="too small: ask for at least 80"):
        main(["data", "demo", "--root", str(tmp_path / "demo"), "--images", "7"])
