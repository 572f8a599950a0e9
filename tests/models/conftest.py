"""Backbones as conf/ has them, and a tiny one."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from skinlesion.errors import validated
from skinlesion.models import Backbone, BackboneSpec

CONF = Path(__file__).parents[2] / "conf/backbone"
TINY = {
    **{"name": "tiny", "timm_model": "test_efficientnet", "pretrained": "r160_in1k"},
    **{"cut": "blocks.4.0.bn2", "input_size": 64, "mean": [0.5] * 3, "std": [0.5] * 3},
    "keras_momentum": 0.001,
}
torch.set_num_threads(
    1
)  # small tensors: threads that wait for each other cost more than they bring


@pytest.fixture(scope="session")
def config() -> Callable[..., dict[str, Any]]:
    """The fields of a backbone's YAML, or of the tiny one (192 x 2 x 2), with changes."""

    def load(name: str = "tiny", /, **changes: Any) -> dict[str, Any]:
        fields: Any = TINY
        if name != "tiny":
            fields = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
        return fields | changes

    return load


@pytest.fixture(scope="session")
def build(config: Callable[..., dict[str, Any]]) -> Callable[..., Backbone]:
    """A backbone without pretrained weights."""
    return lambda *name, **changes: Backbone(
        validated(BackboneSpec, config(*name, **changes), "backbone")
    )


@pytest.fixture(scope="session")
def tiny(build: Callable[..., Backbone]) -> Backbone:
    """The tiny backbone, for who leaves it as it is or overwrites all of it."""
    return build()


@pytest.fixture(scope="session")
def on_meta(build: Callable[..., Backbone]) -> Callable[[str], Backbone]:
    """A backbone of conf/ that holds no numbers, each built once."""

    @cache
    def build_on_meta(name: str) -> Backbone:
        with torch.device("meta"):
            return build(name)

    return build_on_meta


@pytest.fixture(scope="session")
def image() -> torch.Tensor:
    """Two images of noise, (2, 3, 64, 64) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
