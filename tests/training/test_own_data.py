"""Data of one's own: a table and images in, a finished run out; and ISIC 2019's two files."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.errors import InstantiationException
from PIL import Image

from skinlesion.cli import main
from skinlesion.data.encoding import MetadataEncoder
from skinlesion.errors import SkinlesionError
from skinlesion.models.classifier import build_classifier
from skinlesion.runs.directory import identity
from skinlesion.runs.predictions import read_predictions
from skinlesion.training.run import run

COLOURS = {"Red": (220, 60, 60), "green": (60, 200, 60), "No": (60, 60, 220)}


def picture(path, colour, number):
    rng = np.random.default_rng(number)
    noise = rng.integers(-40, 40, (40, 48, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """36 PNGs of three classes, two of a lesion, with columns of their own."""
    root = tmp_path_factory.mktemp("own") / "clinic"
    numbers = range(36)
    kinds = [[*COLOURS][number // 2 % 3] for number in numbers]
    for number, kind in enumerate(kinds):
        picture(root / "photos" / f"{number}.png", COLOURS[kind], number)
    columns = {
        "File": [f"{number}.png" for number in numbers],
        "Diagnosis": kinds,
        "Spot": [f"s{number // 2}" for number in numbers],
        "Size (mm)": ["" if number == 7 else 1 + number % 9 / 2 for number in numbers],
        "Skin type": [("I", "II", "III", "")[number % 4] for number in numbers],
        "Note": [f"note {number}" for number in numbers],
        "Camera": "the same",
    }
    pd.DataFrame(columns).to_csv(root / "list.csv", index=False)
    return root


OWN = """
# @package _global_
machine: {{data: "{root}"}}
data:
  limit: null
  resident: null
  demo: null
  tables: [list.csv]
  classes: [Red, green, "No"]
  columns: {{image: File, lesion: Spot, label: Diagnosis}}
  properties:
    size: {{column: Size (mm), range: [0, 20]}}
    skin: {{column: Skin type, values: [I, II, III]}}
"""


@pytest.fixture
def composed(plain, tiny, tmp_path):
    """The tiny run, of a conf/data/<name>.yaml that is not the project's."""

    def make(name, *overrides, text):
        path = tmp_path / "conf" / "data" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip())
        common = [override for override in tiny if not override.startswith("machine.data")]
        words = [f"hydra.searchpath=[file://{tmp_path / 'conf'}]", f"data={name}", *common]
        return plain(*words, "trainer.max_epochs=1", *overrides)

    return make


@pytest.fixture
def mine(composed, own):
    return lambda *overrides: composed("mine", *overrides, text=OWN.format(root=own))


def description(directory):
    return torch.load(directory.best, weights_only=True)["hyper_parameters"]


def test_three_classes_of_pngs_with_other_metadata_are_trained(mine):
    directory = run(mine("split=lesion"))
    predictions = read_predictions(directory.predictions)
    assert predictions.classes == ("Red", "green", "No")
    assert set(predictions.splits) == {"val", "test"}
    assert len(pd.read_csv(directory.path / "split.csv")) == 36  # also the one without a size
    metrics = directory.read_json("metrics.json")
    assert [*metrics["parts"]["test"]["per_class"]] == ["Red", "green", "No"]
    assert [*metrics["leak"]["test"]["per_class"]] == ["Red", "green", "No"]

    saved = description(directory)
    assert saved["classes"] == ["Red", "green", "No"]
    assert saved["network"]["classes"] == 3
    assert saved["network"]["properties"] == [1, 5]  # a number; unseen, I, II, III, unknown
    network = build_classifier(**saved["network"])
    assert network.metadata.layers[0].in_features == 6
    encoder = MetadataEncoder.from_dict(saved["encoder"])
    encoded = encoder.encode_typed([{"size": "3", "skin": "ii"}])
    assert encoded[0, 1:].tolist() == [0, 0, 1, 0, 0]


def test_without_metadata_a_run_has_no_branch_and_one_that_asks_for_it_is_refused(mine):
    config = mine("metadata=none", "debug=fast")
    config.data.properties = {}
    saved = description(run(config))
    assert saved["network"]["properties"] == []
    assert saved["encoder"]["properties"] == {}
    for branch in ("paper", "gessert"):
        config.metadata = {"name": branch}
        with pytest.raises(SkinlesionError, match=r"data has no metadata .*: metadata=none, or"):
            run(config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.classes=[Red,green]", r"Diagnosis other than Red, green: 4 \(No\), 5 \(No\), 10"),
        ("data.columns.label=Kind", r"columns missing: Kind"),
        ("data.properties.size.range=[0,2]", r"size that is no number from 0 to 2: "),
        ("data.tables=[absent]", r"Expected one of absent\.csv, absent"),
        ("~data.classes", r"data\.classes: expected a value"),
        ("loss=released", "expected 3 numbers above 0"),
    ],
)
def test_what_does_not_fit_the_table_is_named(mine, override, message):
    with pytest.raises((SkinlesionError, InstantiationException)) as refusal:
        run(mine(override))
    assert re.search(message, f"{refusal.value} {refusal.value.__cause__}")


def test_what_the_data_is_made_of_is_part_of_a_run_and_its_folder_is_not(mine):
    first = mine()
    assert identity(mine("machine.data=elsewhere")) == identity(first)
    changes = ("classes=[green,Red,'No']", "columns.lesion=null", "properties.size.range=[0,30]")
    others = [mine(f"data.{change}") for change in changes]
    reordered = mine()
    reordered.data.properties = dict(reversed([*first.data.properties.items()]))
    assert len({identity(config) for config in [first, *others, reordered]}) == 5


def test_what_describe_prints_is_a_config_that_trains(own, composed, capsys):
    words = ["--image", "File", "--label", "Diagnosis", "--lesion", "Spot"]
    main(["data", "describe", str(own / "list.csv"), *words])
    config = composed("described", "debug=fast", text=capsys.readouterr().out)
    assert config.machine.data == str(own)
    assert config.data.classes == ["green", "No", "Red"]
    assert [*config.data.properties] == ["size_mm", "skin_type"]
    assert run(config).done.exists()


ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")


@pytest.fixture(scope="session")
def isic(tmp_path_factory):
    """Five images of each class but UNK, in ISIC 2019's files, columns and folder."""
    root, numbers = tmp_path_factory.mktemp("isic2019"), range(40)
    names = [f"ISIC_{number:07d}{'_downsampled' * (number % 3 == 0)}" for number in numbers]
    for number, name in enumerate(names):
        colour = np.random.default_rng(number % 8).integers(0, 255, 3)
        picture(root / "ISIC_2019_Training_Input" / f"{name}.jpg", colour, number)
    truth = pd.DataFrame(np.eye(9)[[number % 8 for number in numbers]], names, ISIC_CLASSES)
    sites = ("anterior torso", "head/neck", "oral/genital", "")
    columns = {
        "age_approx": ["" if number == 9 else 30 + number for number in numbers],
        "anatom_site_general": [sites[number % 4] for number in numbers],
        "lesion_id": ["" if number < 16 else f"BCN_{number:07d}" for number in numbers],
        "sex": [("female", "male", "")[number % 3] for number in numbers],
    }
    truth.to_csv(root / "ISIC_2019_Training_GroundTruth.csv", index_label="image")
    metadata = pd.DataFrame(columns, names)
    metadata.to_csv(root / "ISIC_2019_Training_Metadata.csv", index_label="image")
    return root


def test_isic_2019_is_trained_from_its_own_files(config, isic):
    directory = run(
        config("data=isic2019", f"machine.data={isic}", "split=lesion", "trainer.max_epochs=1")
    )
    saved = description(directory)
    assert saved["classes"] == [*ISIC_CLASSES[:-1]]
    assert saved["network"]["properties"] == [1, 4, 10]
    split = pd.read_csv(directory.path / "split.csv", index_col="image_id")
    assert len(split) == 39  # one has no age
    assert split.loc["ISIC_0000008", "dx"] == "MEL"
    assert split.loc["ISIC_0000008", "lesion_id"] == "ISIC_0000008"
    assert split.loc["ISIC_0000016", "lesion_id"] == "BCN_0000016"
