"""Every option of every axis composes, and what has a target can be instantiated."""

import pytest
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from skinlesion.cli import CONF
from skinlesion.errors import SkinlesionError
from skinlesion.training.config import read_job
from skinlesion.training.run import run

CHOICES = [
    (group.name, str(file.relative_to(group).with_suffix("")))
    for group in sorted(CONF.iterdir())
    if group.is_dir() and group.name != "hydra"
    for file in sorted(group.rglob("*.yaml"))
]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_and_names_something_that_exists(config, group, choice):
    composed = config(f"{group}={choice}")
    if not choice.startswith("exceptions/"):  # which only add to a recipe
        read_job(composed)
    node = composed.get(group)
    if OmegaConf.is_dict(node) and "_target_" in node:
        assert callable(get_object(node["_target_"]))


def test_the_learning_rate_falls_as_the_papers(plain):
    composed = plain()
    optimizer = instantiate(composed.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    scheduler = instantiate(composed.scheduler)(optimizer)
    rates = []
    for _ in range(200):
        scheduler.step(1.0)  # no epoch improves on the first
        rates.append(optimizer.param_groups[0]["lr"])
    # Keras' patience of 5: reduced after the fifth epoch without improvement.
    assert (rates[4], rates[5], rates[-1]) == pytest.approx((0.001, 0.0002, 1e-7))


def switches(composed):
    """Every switch that text and code set differently or are silent about."""
    optimizer = instantiate(composed.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    return {
        "attention": composed.attention.name,
        "metadata": composed.metadata.name,
        "preprocess": composed.preprocess.name,
        "split": (composed.split.name, composed.split.val_fraction),
        "augment": composed.augment,
        "loss": OmegaConf.to_container(composed.loss)["weight"],
        "optimizer": type(optimizer).__name__,
        "lr": optimizer.defaults["lr"],
        "eps": optimizer.defaults["eps"],
        "plateau": composed.scheduler and composed.scheduler.patience,
        "batch_size": composed.batch_size,
        "stop": composed.callbacks.early_stopping.patience,
        "best": composed.callbacks.best.monitor,
        "initialiser": composed.initialiser,
        "batch_norm": composed.batch_norm,
    }


AS_WRITTEN = {
    "attention": "paper",
    "metadata": "paper",
    "preprocess": "paper",
    "split": ("paper", 0.1),
    "augment": None,
    "loss": "balanced",
    "optimizer": "Adam",
    "lr": 0.001,
    "eps": 0.1,
    "plateau": 4,  # Keras' 5
    "batch_size": 32,
    "stop": 35,
    "best": "val_accuracy",
    "initialiser": "keras",
    "batch_norm": "timm",
}
AS_RELEASED = AS_WRITTEN | {
    "attention": "released",
    "preprocess": "released",
    "loss": [4.37, 2.78, 1.3, 12.44, 1.28, 0.21, 10],
    "optimizer": "KerasAdam",
    "batch_size": 10,
    "batch_norm": "keras",
}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("experiment=as_written", AS_WRITTEN),
        ("experiment=as_released", AS_RELEASED),
        ("experiment=as_released backbone=resnet152", AS_RELEASED | {"split": ("paper", 0.15)}),
        ("experiment=as_released backbone=resnet50", AS_RELEASED | {"plateau": None, "stop": 25}),
        # The exceptions are the recipe's, not the backbone's.
        ("experiment=as_written backbone=resnet50", AS_WRITTEN),
        ("backbone=resnet152", AS_WRITTEN | {"preprocess": "weights"}),
        # A choice of one's own wins over an experiment's, which wins over a recipe's.
        ("experiment=as_released loss=unweighted", AS_RELEASED | {"loss": None}),
        ("experiment=as_written batch_size=10", AS_WRITTEN | {"batch_size": 10}),
        (
            "experiment=as_written recipe=released",
            AS_RELEASED | {"attention": "paper", "preprocess": "paper"},
        ),
        (
            "recipe=datta",
            AS_WRITTEN
            | {"preprocess": "weights", "split": ("paper", 0.15), "loss": [1, 1, 1, 1, 5, 1, 1]}
            | {"optimizer": "KerasAdam", "lr": 0.01, "plateau": None, "batch_size": 16, "stop": 30}
            | {"batch_norm": "keras"},
        ),
    ],
)
def test_what_a_recipe_and_an_experiment_set(plain, overrides, expected):
    assert switches(plain(*overrides.split())) == expected


@pytest.mark.parametrize("overrides", [[], ["experiment=demo"]])
def test_debug_wins_over_what_it_is_combined_with(config, overrides):
    composed = config(*overrides, "debug=fast", "trainer.max_epochs=1")
    assert (composed.batch_size, composed.trainer.limit_train_batches) == (2, 1)


def test_the_root_of_the_data_comes_from_the_environment(plain, monkeypatch):
    monkeypatch.setenv("HAM10000_ROOT", "/somewhere/else")
    assert plain().machine.data == "/somewhere/else"


def test_tensorboard_gets_the_curves_of_a_run(config, tmp_path):
    pytest.importorskip("tensorboard")
    run(config("logger=tensorboard", "debug=fast"))
    assert list((tmp_path / "runs" / "tensorboard").rglob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_size=0", "batch_size=0: expected greater than or equal to 1"),
        ("seed=x", "seed=x: expected a valid integer"),
        ("dropout=2", "dropout=2: expected less than or equal to 1"),
        ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5: expected a valid integer"),
        ("trainer.limit_val_batches=0", "limit_val_batches=0: expected a number of batches from 1"),
        ("optimizer.eps=0", "eps=0: expected a number above 0"),
        ("optimizer.eps=small", "eps=small: expected a number above 0"),
        ("optimizer.lr=-1", "lr=-1: expected a number from 0"),
        ("missing_metadata=drop", "missing_metadata=drop: expected 'category' or 'zero'"),
        ("batch_norm=tf", "batch_norm=tf: expected 'timm' or 'keras'"),
        ("initialiser=he", "initialiser=he: expected 'keras' or 'torch'"),
        ("precision=16", "precision=16: expected '32-true' or 'bf16-mixed'"),
        ("machine.workers=-1", "machine.workers=-1: expected greater than or equal to 0"),
        ("machine.compile=fast", "machine.compile=fast: expected 'default', 'reduce-overhead' or"),
        ("machine.fused=soon", "machine.fused=soon: expected a valid boolean"),
        ("machine.evaluation_batch=0", "machine.evaluation_batch=0: expected greater than or"),
        # A value that was added and would do nothing, with the name that was meant.
        ("+lr=0.05", "lr: there is no such key"),
        ("+trainer.precision=bf16-mixed", r"trainer\.precision: there is no such key.*precision"),
        ("+trainer.fast_dev_run=true", r"trainer\.fast_dev_run: there is no such key"),
        ("+machine.worker=2", r"machine\.worker: .*Did you mean machine\.workers"),
        ("+split.weight=1", r"split\.weight: there is no such key"),
        ("split.folds=1", "split.folds"),
        ("split.val_fraction=x", "split.val_fraction=x"),
        ("split.seed=-1", "split.seed=-1"),
        ("seed=-1 batch_size=0", "seed=-1: .*batch_size=0: "),  # all that is wrong at once
    ],
)
def test_a_value_that_cannot_be_is_named(config, override, message):
    with pytest.raises(SkinlesionError, match=message) as refusal:
        read_job(config(*override.split()))
    assert "\n" not in str(refusal.value)
