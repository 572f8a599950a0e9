"""What several folders of tests need."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from hydra import compose, initialize_config_dir

from skinlesion.cli import CONF
from skinlesion.data.demo import write_demo

# Tests run side by side, a thread each; before torch is imported, and for commands that they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """A tiny drawn archive."""
    root = tmp_path_factory.mktemp("archive") / "demo"
    return write_demo(root, images=80, size=(96, 72), progress=False)


@pytest.fixture(scope="session")
def tiny_job(archive, tmp_path_factory):
    """What makes a run of the tiny archive a matter of a second or two."""
    return [
        *("backbone=mobilenet_v3_small", "backbone.input_size=64", "weights=none"),
        *("preprocess=paper", "trainer.max_epochs=2", "machine.device=cpu", "optimizer.eps=0.001"),
        *(f"machine.data={archive}", f"machine.cache={tmp_path_factory.mktemp('cache')}"),
    ]


@pytest.fixture(scope="session")
def plain():
    """A config with overrides."""

    def composed(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", [*overrides])

    return composed


@pytest.fixture
def tiny(tiny_job, tmp_path):
    return [*tiny_job, f"machine.runs={tmp_path / 'runs'}"]


@pytest.fixture
def config(plain, tiny):
    """A config of the tiny run, with further overrides."""
    return lambda *overrides: plain(*tiny, *overrides)


@pytest.fixture
def training(tmp_path):
    """train.py in a process of its own, from the end of its first epoch."""

    @contextmanager
    def started(*words):
        command = [sys.executable, str(CONF.parent / "train.py"), *words]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, cwd=tmp_path, **streams) as process:
            files = ()
            while not any(file.read_text().count("\n") > 1 for file in files):
                assert process.poll() is None, "the run ended before it could be stopped"
                time.sleep(0.01)
                files = tmp_path.glob("runs/*/*/*/history.csv")
            yield process

    return started


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium (Debian: apt-get install chromium)."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"needs a browser on the path: {', '.join(names)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
