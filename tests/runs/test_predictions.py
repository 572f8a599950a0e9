"""The predictions file: what is written is what is read, and wrong files say what is wrong."""

import errno

import numpy as np
import pandas as pd
import pytest

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.metrics import evaluate_file
from skinlesion.runs.predictions import read_predictions, write_predictions

CLASSES = ("akiec", "bcc", "nv")


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "image_id": ["0001", "0002", "0003", "0001"],
            "lesion_id": ["007", "007", "NA", "007"],
            "split": ["val", "val", "val", "test"],
            "label": ["akiec", "nv", "bcc", "akiec"],
            "akiec": [0.7, 0.2, 0.1, 0.6],
            "bcc": [0.2, 0.2, 0.3, 0.3],
            "nv": [0.1, 0.6, 0.6, 0.1],
        }
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "predictions.csv"


def test_a_file_reads_back_as_it_was_written(frame, path):
    write_predictions(frame, path)
    predictions = read_predictions(path)
    pd.testing.assert_frame_equal(predictions.frame, frame, check_dtype=False)
    assert predictions.classes == CLASSES
    assert predictions.splits == ("val", "test")
    assert predictions.y.tolist() == [0, 2, 1, 0]
    assert predictions.probabilities.shape == (4, 3)


def test_a_part_holds_one_split_and_an_unknown_one_names_those_there_are(frame, path):
    write_predictions(frame, path)
    part = read_predictions(path).part("test")
    assert part.frame["image_id"].tolist() == ["0001"]
    assert part.y.tolist() == [0]
    assert part.probabilities.tolist() == [[0.6, 0.3, 0.1]]
    with pytest.raises(SkinlesionError, match="'train'; there are val, test"):
        read_predictions(path).part("train")


def test_float32_probabilities_come_back_to_the_last_bit(path):
    logits = np.random.default_rng(0).normal(scale=8, size=(200, 7)).astype(np.float32)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    names = [f"class{c}" for c in range(7)]
    frame = pd.DataFrame(
        {"image_id": range(200), "lesion_id": 0, "split": "val", "label": "class0"}
    )
    write_predictions(pd.concat([frame, pd.DataFrame(probabilities, columns=names)], axis=1), path)
    back = read_predictions(path).probabilities
    np.testing.assert_array_equal(back.astype(np.float32), probabilities)
    np.testing.assert_allclose(back.sum(axis=1), 1, rtol=0, atol=1e-4)


def test_writing_makes_the_folder_and_leaves_nothing_else(frame, tmp_path):
    path = tmp_path / "run" / "predictions.csv"
    write_predictions(frame, path)
    write_predictions(frame.head(1), path)
    assert [file.name for file in path.parent.iterdir()] == ["predictions.csv"]
    assert len(read_predictions(path).frame) == 1


def test_a_failed_write_keeps_the_old_file(frame, path, monkeypatch):
    write_predictions(frame, path)

    def write_half(_, target, **options):
        target.write_text("image_id,")
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", write_half)
    with pytest.raises(OSError, match="no space left"):
        write_predictions(frame.head(1), path)
    assert [file.name for file in path.parent.iterdir()] == ["predictions.csv"]
    assert len(read_predictions(path).frame) == 4


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: f.drop(columns="lesion_id"), "columns are image_id, split, .* expected image"),
        (lambda f: f.drop(columns=["bcc", "nv"]), "one probability column per class"),
        (lambda f: f.head(0), "no rows"),
        (lambda f: f.assign(label="melanoma"), "unknown label melanoma; .* akiec, bcc, nv"),
        (lambda f: f.assign(split="val"), "more than one row for 0001"),
        (lambda f: f.assign(bcc=[0.2, np.nan, 0.3, 0.3]), r"0002 do not all lie in .* or NaN"),
        (lambda f: f.assign(bcc=[0.2, np.inf, 0.3, 0.3]), "0002 do not .* some are infinite"),
        (lambda f: f.assign(bcc=["0.2", "x", "0.3", "0.3"]), "0002 do not .* 'x' is no number"),
        (lambda f: f.assign(akiec=[0.7, 0.2, -0.1, 0.6]), "0003 do not all lie .* logits"),
        (lambda f: f.assign(akiec=[0.7, 0.2, 1.1, 0.6]), "0003 do not all lie .* logits"),
        (lambda f: f.assign(nv=[0.1, 0.6, 0.6, 0.102]), r"0001 do not sum to 1 .* to 1\.002\)"),
        (lambda f: f.assign(**np.log(f[[*CLASSES]])), "they may be logits: take the softmax"),
        (lambda f: f.assign(**100 * f[[*CLASSES]]), "they are percentages"),
        (lambda f: f.assign(**(100 * f[[*CLASSES]]).astype(str) + "%"), "they are percentages"),
        (lambda f: f.assign(note="ok"), "the column note is no class"),
        (lambda f: f.assign(age=55), "the column age is no class"),
        (lambda f: f.assign(confidence=0.6), "the column confidence is no class"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(frame, path, break_it, message):
    wrong = break_it(frame)
    wrong.to_csv(path, index=False)
    with pytest.raises(SkinlesionError, match=message):
        read_predictions(path)
    path.unlink()
    with pytest.raises(SkinlesionError, match=message):
        write_predictions(wrong, path)
    assert not path.exists()


def test_reading_allows_for_rounding_that_writing_does_not(frame, path):
    rounded = frame.assign(nv=[0.1005, 0.6, 0.6, 0.1])
    rounded.to_csv(path, index=False)
    assert len(read_predictions(path).frame) == 4
    with pytest.raises(SkinlesionError, match=r"within 0\.0001"):
        write_predictions(rounded, path)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00\x01", b"a,b\n1,2,3\n1,2,3,4\n"])
def test_what_is_no_csv_gives_one_clear_error(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SkinlesionError, match=r"predictions\.csv"):
        read_predictions(path)


def test_evaluate_file_takes_each_split_by_itself(frame, path):
    write_predictions(frame, path)
    result = evaluate_file(path)
    assert list(result) == ["val", "test"]
    assert result["val"]["n"] == 3
    assert result["val"]["accuracy"] == pytest.approx(2 / 3)  # 0003, a bcc, is taken for nv
    assert result["test"]["accuracy"] == 1
