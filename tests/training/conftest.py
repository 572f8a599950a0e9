"""The overrides of a run of the tiny archive, which takes a second or two."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(archive: Path, cache: Path, tmp_path: Path) -> list[str]:
    return [
        "backbone=mobilenet_v3_small",
        "backbone.input_size=64",
        "weights=none",
        "preprocess=paper",
        "trainer.max_epochs=2",
        "machine.device=cpu",
        "optimizer.eps=0.001",
        f"machine.data={archive}",
        f"machine.cache={cache}",
        f"machine.runs={tmp_path / 'runs'}",
    ]


@pytest.fixture
def plain() -> Callable[..., DictConfig]:
    """A config with overrides."""

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", [*overrides])

    return make


@pytest.fixture
def config(plain: Callable[..., DictConfig], tiny: list[str]) -> Callable[..., DictConfig]:
    """A config of the tiny run, with further overrides."""
    return lambda *overrides: plain(*tiny, *overrides)
