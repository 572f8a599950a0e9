"""What several folders of tests need."""

from pathlib import Path

import pytest

from skinlesion.data.demo import write_demo


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny drawn archive."""
    root = tmp_path_factory.mktemp("archive") / "demo"
    return write_demo(root, images=80, size=(96, 72), progress=False)
