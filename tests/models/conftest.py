"""Backbones as conf/ has them, and a tiny one (192 x 2 x 2 at 64 pixels)."""

from functools import cache

import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.cli import CONF
from skinlesion.errors import validated
from skinlesion.models.backbone import Backbone
from skinlesion.models.spec import BackboneSpec

TINY = {
    **{"name": "tiny", "timm_model": "test_efficientnet", "pretrained": "r160_in1k"},
    **{"cut": "blocks.4.0.bn2", "input_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
    "keras_momentum": 0.001,
}
# Small tensors: threads that wait for each other cost more than they bring.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def config():
    """The fields of a backbone's YAML, or of the tiny one, with changes."""
    files = CONF / "backbone"
    load = OmegaConf.load
    yaml = cache(lambda name: OmegaConf.to_container(load(files / f"{name}.yaml"), resolve=True))
    return lambda name="tiny", /, **changes: (TINY if name == "tiny" else yaml(name)) | changes


@pytest.fixture(scope="session")
def build(config):
    """A backbone without pretrained weights."""
    return lambda *name, **changes: Backbone(
        validated(BackboneSpec, config(*name, **changes), "backbone")
    )


@pytest.fixture(scope="session")
def tiny(build):
    """The tiny backbone, for who leaves it as it is or overwrites all of it."""
    return build()


@pytest.fixture(scope="session")
def on_meta(build):
    """A backbone of conf/ that holds no numbers, each built once."""

    @cache
    def build_on_meta(name):
        with torch.device("meta"):
            return build(name)

    return build_on_meta


@pytest.fixture(scope="session")
def image():
    """Two images of noise, (2, 3, 64, 64) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
