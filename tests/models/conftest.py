"""Backbones as conf/ has them, and small stand-ins for them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf/backbone"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: threads that wait for each other on a busy machine cost a hundredfold."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def config() -> Callable[..., dict[str, Any]]:
    """The fields of a backbone's YAML, with changes; the smallest backbone, at 64 pixels."""

    def load(name: str = "mobilenet_v3_small", /, **changes: Any) -> dict[str, Any]:
        fields: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
        return fields | ({"input_size": 64} if name == "mobilenet_v3_small" else {}) | changes

    return load


@pytest.fixture(scope="session")
def image() -> torch.Tensor:
    """Two images of noise, (2, 3, 64, 64) uint8."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=generator)
