"""What makes a run of the tiny archive a matter of two seconds."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [
        "backbone.input_size=64",
        "weights=none",
        "preprocess=paper",
        "batch_size=16",
        "optimizer.eps=0.001",
        "machine.device=cpu",
        f"machine.data={archive}",
        f"machine.cache={tmp_path_factory.mktemp('cache')}",
    ]
