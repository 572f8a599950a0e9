"""split=official: a test set of its own, in both forms, and a run scored on a folder."""

import zipfile

import pandas as pd
import pytest

from skinlesion.cli import main
from skinlesion.data.demo import write_demo
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.metrics import evaluate
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.evaluate import CHALLENGE
from skinlesion.serving.model import load_run
from skinlesion.training.run import run

NAME = "ISIC2018_Task3_Test_"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A drawn test set as Dataverse has it, and by hand as the challenge has it."""
    folder = tmp_path_factory.mktemp("official")
    drawn = write_demo(folder / "drawn", images=80, size=(96, 72), progress=False, test=True)
    table = pd.read_csv(drawn / f"{NAME}GroundTruth.csv")
    marks = {name: (table["dx"].str.upper() == name).astype(float) for name in CHALLENGE}
    text = pd.DataFrame({"image": table["image_id"]} | marks).to_csv(index=False)
    inputs = folder / "challenge" / f"{NAME}Input"
    with zipfile.ZipFile(drawn / f"{NAME}Images.zip") as file:
        file.extractall(inputs)
    with zipfile.ZipFile(folder / "challenge" / f"{NAME}GroundTruth.zip", "w") as file:
        file.writestr(f"{NAME}GroundTruth/{NAME}GroundTruth.csv", text)
        file.writestr(f"__MACOSX/{NAME}GroundTruth/._{NAME}GroundTruth.csv", "\0")
    return folder


@pytest.fixture(scope="module")
def official(place, plain, tiny_job):
    machine = [f"machine.runs={place / 'runs'}", f"machine.test={place / 'drawn'}"]
    return run(plain(*tiny_job, *machine, "split=official", "trainer.max_epochs=1"))


def test_no_image_of_the_test_set_is_dropped_and_a_folder_is_answered_alike(
    official, place, capsys
) -> None:
    own = read_predictions(official.predictions).part("test").frame
    assert len(own) == 80
    assert official.read_json("metrics.json")["leak"]["test"]["leaked"] == 0
    file = place / "answers.csv"
    words = ["--on", str(place / "drawn"), "--submission", str(file)]
    assert main(["evaluate", str(official.path), *words]) == 0
    printed = capsys.readouterr().out
    assert "images 80, accuracy" in printed
    assert "95 % intervals: accuracy" in printed
    again = read_predictions(official.path / "on" / "drawn.csv").frame
    pd.testing.assert_frame_equal(again, own, atol=1e-5)
    assert file.read_text().splitlines()[0] == "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    assert pd.read_csv(file)["image"].tolist() == own["image_id"].tolist()


def test_the_challenges_form_is_read_and_its_missing_metadata_said(
    official, place, capsys, caplog
) -> None:
    main(["evaluate", str(official.path), "--on", str(place / "challenge")])
    assert "no age, sex, localization, which is unknown for every image" in caplog.text
    labels = read_predictions(official.path / "on" / "challenge.csv").frame["label"].tolist()
    assert labels == read_predictions(official.predictions).part("test").frame["label"].tolist()
    capsys.readouterr()
    file = place / "alone.csv"
    alone = ["--on", str(place / "challenge" / f"{NAME}Input"), "--submission", str(file)]
    main(["evaluate", str(official.path), *alone])
    assert capsys.readouterr().out == ""
    assert len(pd.read_csv(file)) == 80


def test_what_cannot_be_scored_is_one_message(official, place, archive, tmp_path) -> None:
    for folder, message in (
        (archive, "images that trained or selected the run: ISIC_9000000"),
        (tmp_path, "found: an empty folder"),
        (tmp_path / "absent", "no such folder, expected a test set"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(["evaluate", str(official.path), "--on", str(folder)])


def test_an_image_of_both_sets_is_named(place, plain, tiny_job, archive, tmp_path) -> None:
    table = pd.read_csv(archive / "HAM10000_metadata.csv")
    table.to_csv(tmp_path / f"{NAME}GroundTruth.csv", index=False)
    with zipfile.ZipFile(tmp_path / f"{NAME}Images.zip", "w") as file:
        for part in archive.glob("*.zip"):
            with zipfile.ZipFile(part) as images:
                for name in images.namelist():
                    file.writestr(name, images.read(name))
    with pytest.raises(SkinlesionError, match=r"images that are also in .*: ISIC_9000000"):
        run(plain(*tiny_job, "split=official", f"machine.test={tmp_path}"))


def test_the_score_is_the_challenges() -> None:
    """Mean recall at argmax (arXiv:1902.03368): (2/2 + 1/2 + 0/1) / 3, where accuracy is 3/5."""
    truth = pd.Series([0, 0, 1, 1, 2]).to_numpy()
    answers = pd.DataFrame([[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.2, 0.6, 0.2], [0.5, 0.4, 0.1]])
    answers.loc[4] = [0.1, 0.6, 0.3]
    found = evaluate(truth, answers.to_numpy(), ("a", "b", "c"))
    assert found["balanced_accuracy"] == pytest.approx(0.5)
    assert found["accuracy"] == pytest.approx(0.6)


def test_a_run_with_tta_is_measured_by_it_and_can_be_measured_again(
    official, place, plain, tiny_job, capsys
) -> None:
    machine = [f"machine.runs={place / 'flipped'}", f"machine.test={place / 'drawn'}"]
    flipped = run(plain(*tiny_job, *machine, "split=official", "trainer.max_epochs=1", "tta=flips"))
    once, mean = (read_predictions(each.predictions).frame for each in (official, flipped))
    assert not once.equals(mean)
    assert load_run(flipped.path).tta == "flips"
    main(["evaluate", str(flipped.path), "--tta", "none"])
    pd.testing.assert_frame_equal(
        read_predictions(flipped.path / "on" / "itself.csv").frame, once, atol=1e-5
    )
    main(["evaluate", str(official.path), "--tta", "flips", "--calibration"])
    out, err = capsys.readouterr()
    assert "calibration, fitted on val" in out
    assert "tta=flips: 4 views of" in err
    pd.testing.assert_frame_equal(
        read_predictions(official.path / "on" / "itself-flips.csv").frame, mean, atol=1e-5
    )
