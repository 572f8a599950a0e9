"""The bench of a tiny archive, and a measurement that costs nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skinlesion.bench import report, results
from skinlesion.bench.results import Measurement
from skinlesion.bench.setting import Setting

BACKBONE = "mobilenet_v3_small"


@pytest.fixture(scope="session")
def words(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides of a network that is quick."""
    return (
        f"machine.data={archive}",
        f"machine.cache={tmp_path_factory.mktemp('cache')}",
        "backbone.input_size=64",
        "machine.device=cpu",
    )


@pytest.fixture(scope="session")
def setting(words: tuple[str, ...]) -> Setting:
    return Setting(words, batch=8)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Measurement]:
    """A function that puts a measurement in the place of all others."""

    def install(run: results.Rows | Callable[..., results.Rows], each: bool = True) -> Measurement:
        measurement = Measurement(
            name="fake",
            title="A title",
            how="Nothing is divided.",
            columns={"value": "value, unit"},
            each=each,
            run=run if callable(run) else lambda setting, backbone: run,
        )
        for module in (results, report):
            monkeypatch.setattr(module, "load", lambda name: measurement)
        return measurement

    return install
