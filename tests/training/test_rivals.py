"""Every choice that a rival system brought builds a network and takes a step."""

import pandas as pd
import pytest

from skinlesion.training.run import run

VIT = "backbone=baseline/timm backbone.timm_model=test_vit backbone.cut=fc_norm attention=none"


@pytest.mark.parametrize(
    ("size", "choices"),
    [
        (64, "augment=cutout data.resident=true sampler=balanced"),
        (64, "augment=cutout backbone=baseline/efficientnet_lite0"),
        (160, f"augment=randaugment {VIT}"),
        (64, "experiment=yao backbone=baseline/regnety_032"),  # with DropBlock
    ],
)
def test_a_rivals_choice_takes_a_step(config, size, choices):
    words = ["debug=fast", "trainer.max_epochs=1", "machine.workers=0", *choices.split()]
    directory = run(config(*words, f"backbone.input_size={size}"))
    assert pd.read_csv(directory.history)["train_loss"].notna().tolist() == [True]
    assert directory.done.exists()
