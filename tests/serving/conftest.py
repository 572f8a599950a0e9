"""A finished run of the tiny archive, its model and one of its images, all made once."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from skinlesion.cli import main
from skinlesion.data.archive import ImageArchive
from skinlesion.runs.directory import RunDirectory
from skinlesion.serving.model import load_run
from skinlesion.training.run import run

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="session")
def trained(archive, tmp_path_factory):
    """A run by lesion, so that it has a test part. Not to be changed: see `finished_run`."""
    base = tmp_path_factory.mktemp("serving")
    overrides = [
        *("backbone=mobilenet_v3_small", "backbone.input_size=64", "backbone.cut=blocks.2.2.bn3"),
        *(
            "weights=none",
            "preprocess=paper",
            "split=lesion",
            "batch_size=16",
            "optimizer.eps=0.001",
        ),
        *("machine.device=cpu", "trainer.max_epochs=2", f"machine.data={archive}"),
        *(f"machine.cache={base / 'cache'}", f"machine.runs={base / 'runs'}"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return run(compose("config", overrides)).path


@pytest.fixture
def finished_run(trained, tmp_path):
    """A copy of the run, for one test to write into."""
    return RunDirectory(shutil.copytree(trained, tmp_path / "run" / "key" / "seed0"))


@pytest.fixture(scope="session")
def model(trained):
    """The run's model. Not to be changed."""
    return load_run(trained)


@pytest.fixture(scope="session")
def photos(archive, trained, tmp_path_factory):
    """The held-out images as files, and their metadata."""
    folder = tmp_path_factory.mktemp("photos")
    split = pd.read_csv(trained / "split.csv")
    held_out = set(split.loc[split["split"] != "train", "image_id"])
    for image_id in held_out:
        (folder / f"{image_id}.jpg").write_bytes(ImageArchive(archive).read(image_id))
    table = pd.read_csv(archive / "HAM10000_metadata.csv")
    table[table["image_id"].isin(held_out)].to_csv(folder / "metadata.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def photo(photos):
    """One of them."""
    return min(photos.glob("*.jpg"))


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The folder of an exported run. Not to be changed."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("export") / "run" / "key" / "seed0")
    main(["export", str(run), "--repeats", "3"])
    return run / "export"


@pytest.fixture(scope="session")
def record(exported):
    """What its `export.json` holds."""
    return json.loads((exported / "export.json").read_text())
