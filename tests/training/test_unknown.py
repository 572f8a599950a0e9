"""Classes that nothing is trained on: where they are, and how unknown they look."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import IsolationForest

from skinlesion.data.split import Split
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.command import show
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.model import load_run
from skinlesion.training import run as runs
from skinlesion.training.build import open_data
from skinlesion.training.config import read_job
from skinlesion.training.run import run
from skinlesion.training.unknown import mahalanobis

WORDS = ("data.unknown=[df,vasc]", "split=lesion", "debug=fast")


def test_unknown_classes_are_met_only_at_test_and_scored_beside_the_known(config, capsys):
    composed = config(*WORDS)
    directory = run(composed)
    predictions = read_predictions(directory.predictions)
    assert predictions.classes == ("akiec", "bcc", "bkl", "mel", "nv")
    split = pd.read_csv(directory.path / "split.csv")
    held = split["dx"].isin(["df", "vasc"])
    assert {*split.loc[held, "split"]} == {"unknown"}
    assert {*split.loc[~held, "split"]} == {"train", "val", "test"}

    scores = pd.read_csv(directory.path / "unknown.csv")
    assert {*scores.loc[scores["unknown"] == 1, "image_id"]} == {*split.loc[held, "image_id"]}
    assert {*scores.loc[scores["unknown"] == 0, "image_id"]} == {
        *split.loc[split["split"] == "test", "image_id"]
    }
    known = predictions.part("test").frame.set_index("image_id")
    tested = scores.query("unknown == 0")
    answers = known.loc[tested["image_id"], [*predictions.classes]].to_numpy()
    np.testing.assert_allclose(tested["max_softmax"], 1 - answers.max(axis=1), atol=1e-6)

    job, model = read_job(composed), load_run(directory.path)
    samples = open_data(job).load(job.machine.cache, job.image_size)
    images = torch.from_numpy(samples.images[samples.rows]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = model.network(images, torch.from_numpy(samples.metadata)).numpy().astype(float)
        features = model.network.backbone(images).mean(dim=(2, 3)).numpy().astype(float)
    part = samples.frame["split"]
    forest = IsolationForest(random_state=0).fit(features[part == "train"])
    rows = samples.frame.set_index("image_id").index.get_indexer(scores["image_id"])
    np.testing.assert_allclose(
        scores["isolation_forest"], -forest.score_samples(features[rows]), atol=3e-3
    )
    energy = -np.log(np.exp(logits[rows]).sum(axis=1))
    np.testing.assert_allclose(scores["energy"], energy, atol=1e-5)

    found = directory.read_json("metrics.json")["unknown"]
    assert found["images"] == {"known": len(known), "unknown": held.sum()}
    show(directory.path, as_json=False)
    assert "images of df, vasc, which were never trained on" in capsys.readouterr().out


def test_the_distance_is_that_to_the_nearest_class_in_units_of_its_spread():
    rng = np.random.default_rng(0)
    spread, means = np.array([3.0, 0.5]), np.array([[0.0, 0], [10, 10]])
    labels = np.repeat([0, 1], 20_000)
    known = means[labels] + spread * rng.normal(size=(40_000, 2))
    asked = np.array([[0.0, 0], [3, 0], [0, 1], [10, 11], [4, 10]])
    # (Δ / spread)² by hand: to the first class or, the last two, to the second.
    np.testing.assert_allclose(mahalanobis(known, labels, asked), [0, 1, 4, 4, 4], atol=0.15)


def test_a_joined_lesion_of_both_trains_no_unknown_image():
    frame = pd.DataFrame(
        {
            "image_id": [f"i{i:02}" for i in range(13)],
            "lesion_id": [f"l{i:02}" for i in range(13)],
            "dx": ["a"] * 6 + ["b"] * 6 + ["c"],
        }
    )
    split = Split("lesion", "lesion", 0, 0.2, 0.2, join=[("i00", "i12")])
    parts = split.apply(frame, ["a", "b"])
    assert (parts["split"] == "unknown").tolist() == [False] * 12 + [True]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data.unknown=[df] split=paper", r"data\.unknown with split=paper: expected split=lesion"),
        ("data.unknown=[df] split=official", r"data\.unknown with split=official"),
        ("data.unknown=[df,ak]", r"unknown: ak is no class; expected some of akiec, bcc, bkl"),
        ("data.unknown=[akiec,bcc,bkl,df,mel,nv]", "unknown: vasc is left; expected two classes"),
        ("data.unknown=[]", "at least 1 item"),
        ("data.unknown=[df] head=knn", r"head: .* Expected data\.unknown=null"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_loaded(config, monkeypatch, words, message):
    monkeypatch.setattr(runs, "build", None)
    plain = ["split=lesion", "attention=none", "metadata=none", "weights=imagenet"]
    with pytest.raises(SkinlesionError, match=message) as refusal:
        run(config(*plain, *words.split()))
    assert "\n" not in str(refusal.value)
