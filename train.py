"""Train and evaluate one run, or a sweep of runs: `python train.py --help`."""

import sys
from contextlib import nullcontext
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from skinlesion.cli import clear_errors, without_plus


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Train what the config says; torch is imported only here, so that --help is quick."""
    from skinlesion.training.run import run

    # A run answers here, or Hydra would put a line of its own before the message. A sweep must show
    # Hydra the error: it goes on with the other jobs, and says in that line which one failed.
    alone = HydraConfig.get().mode is RunMode.RUN
    with clear_errors() if alone else nullcontext():
        run(config)


if __name__ == "__main__":
    sys.argv = without_plus(sys.argv, Path(__file__).parent / "conf")
    with clear_errors(config_dir="conf"):
        main()
