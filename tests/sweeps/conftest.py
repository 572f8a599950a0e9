"""A tiny drawn archive, and what makes a run of it a matter of two seconds."""

from pathlib import Path

import pytest

from skinlesion.data.demo import write_demo


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archive") / "demo"
    return write_demo(root, images=80, size=(96, 72), progress=False)


@pytest.fixture(scope="session")
def tiny(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [
        "backbone.input_size=64",
        "weights=none",
        "preprocess=paper",
        "batch_size=16",
        "optimizer.eps=0.001",
        "trainer.accelerator=cpu",
        f"data.root={archive}",
        f"data.cache={tmp_path_factory.mktemp('cache')}",
    ]
