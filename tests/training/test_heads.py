"""A head of scikit-learn in the place of the last layer: what it sees, answers, and leaves."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skinlesion.errors import SkinlesionError
from skinlesion.reporting.figures.run import _drawings, outdated
from skinlesion.reporting.results import Run
from skinlesion.runs.directory import identity, read_history
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.model import load_run
from skinlesion.training import heads
from skinlesion.training import run as runs
from skinlesion.training.build import open_data
from skinlesion.training.config import read_job
from skinlesion.training.run import run

PROBE = ("attention=none", "pooling=average", "metadata=encoded", "split=lesion")


def data_of(config):
    job = read_job(config)
    return open_data(job).load(job.machine.cache, job.image_size)


def parts_of(samples):
    return (np.flatnonzero(samples.frame["split"] == name) for name in ("train", "val", "test"))


def test_a_head_answers_as_the_estimator_does_on_the_networks_features(config, trained):
    composed = config(*PROBE, "head=logistic", f"weights={trained.path}")
    directory = run(composed)

    samples, network = data_of(composed), load_run(trained.path).network.backbone
    images = torch.from_numpy(samples.images[samples.rows]).permute(0, 3, 1, 2)
    with torch.inference_mode():
        pooled = network(images).mean(dim=(2, 3)).relu().numpy()
    x = np.concatenate([pooled, samples.metadata], axis=1)
    train, val, test = parts_of(samples)
    expected = make_pipeline(
        StandardScaler(), LogisticRegression(C=1, class_weight="balanced", max_iter=1000)
    ).fit(x[train], samples.labels[train])

    predictions = read_predictions(directory.predictions)
    held = np.concatenate([val, test])
    assert predictions.frame["image_id"].tolist() == samples.frame["image_id"][held].tolist()
    np.testing.assert_allclose(
        predictions.probabilities, expected.predict_proba(x[held]), atol=1e-3
    )


def test_a_forest_on_pixels_needs_no_network_and_the_seed_decides_it(config):
    words = ["attention=none", "metadata=none", "head=random_forest", "head.features=pixels"]
    words += ["head.estimator.n_estimators=20", "seed=3"]
    composed = config(*words)
    predictions = read_predictions(run(composed).predictions)
    samples = data_of(composed)
    train, val, _ = parts_of(samples)
    x = samples.images[samples.rows].reshape(len(samples.rows), 28 * 28 * 3) / 255
    forest = RandomForestClassifier(20, class_weight="balanced", random_state=3)
    expected = forest.fit(x[train], samples.labels[train]).predict_proba(x[val])
    np.testing.assert_allclose(predictions.probabilities, expected, atol=1e-8)


def test_features_are_computed_once_for_each_network(config, trained, tmp_path, monkeypatch):
    words = [*PROBE, "head=logistic", f"machine.cache={tmp_path}"]
    passes, one_pass = [], heads.one_pass
    monkeypatch.setattr(heads, "one_pass", lambda *a: passes.append(a) or one_pass(*a))
    run(config(*words, f"weights={trained.path}"))
    run(config(*words, f"weights={trained.path}", "head=knn", "seed=1", "split.seed=5"))
    assert len(passes) == 1
    other = torch.load(trained.best, weights_only=True)
    other["state_dict"]["network.backbone.trunk.conv_stem.weight"] *= 2
    torch.save(other, tmp_path / "other.ckpt")
    run(config(*words, f"weights={tmp_path / 'other.ckpt'}"))
    assert len(passes) == 2


def test_a_run_of_a_head_is_read_as_any_other(config, trained):
    """No epochs, no checkpoint: figures, status, evaluation and report go on without."""
    composed = config(*PROBE, "head=logistic", f"weights={trained.path}")
    directory = run(composed)
    assert identity(composed) == directory.identity
    assert len(read_history(directory.history)) == 0
    made = Run(directory)
    assert (made.provenance.epochs, made.provenance.seconds_per_epoch) == (0, None)
    assert made.part.role == made.parts[1].role == "selected nothing"
    assert outdated(directory)
    names = [name for name, _ in _drawings(directory, None)]
    assert {"confusion_matrix_val", "mistakes_test"} <= {*names}
    assert not [name for name in names if name.startswith(("attention", "learning"))]
    directory.figures.mkdir()
    (directory.figures / "per_class_f1_test.png").touch()
    assert not outdated(directory)
    with pytest.raises(SkinlesionError, match=r"is a head's \(.*make_pipeline\).* for tables only"):
        load_run(directory.path)
    with pytest.raises(SkinlesionError, match=r"this run has no checkpoint \(a head's run"):
        run(config(f"weights={directory.path}"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("weights=none", "Expected weights=imagenet, a file or a finished run"),
        ("attention=paper hidden=8", "Expected hidden=null, attention=none"),
        ("metadata=paper", "Expected metadata=none or metadata=encoded"),
        ("teacher=mean augment=cutout", "Expected augment=none, teacher=none"),
        ("freeze=true sampler=balanced", "Expected freeze=null, sampler=null"),
        ("head.features=fourier", "head.features=fourier: expected 'pooled' or 'pixels'"),
        ("head.estimator._target_=sklearn.svm.LinearSVC", "LinearSVC gives no probabilities"),
    ],
)
def test_what_a_head_cannot_use_is_one_line_before_anything_is_loaded(
    config, monkeypatch, words, message
):
    monkeypatch.setattr(runs, "open_data", None)
    plain = ["attention=none", "metadata=none", "weights=imagenet", "preprocess=weights"]
    with pytest.raises(SkinlesionError, match=message) as refusal:
        run(
            config(
                *plain,
                "head=random_forest",
                "~head.estimator.n_estimators",
                "~head.estimator.n_jobs",
                *words.split(),
            )
        )
    assert "\n" not in str(refusal.value)


def test_what_scikit_learn_refuses_is_one_line(config):
    pixels = ["attention=none", "metadata=none", "head=random_forest", "head.features=pixels"]
    with pytest.raises(SkinlesionError, match=r"head\.estimator: The 'n_estimators' parameter"):
        run(config(*pixels, "head.estimator.n_estimators=0"))


def test_the_trained_layer_is_no_head_and_so_the_run_that_it_was(plain):
    composed = plain("head=linear")
    before = OmegaConf.create(
        {k: v for k, v in OmegaConf.to_container(composed).items() if k != "head"}
    )
    assert identity(composed) == identity(before)
    assert identity(plain("head=knn")) != identity(before)
