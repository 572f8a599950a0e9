"""Train and evaluate one run, or a sweep of runs: `python train.py --help`."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from skinlesion.cli import clear_errors, without_plus


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    """Train what the config says; torch is imported only here, so that --help is quick."""
    with clear_errors():  # here, or Hydra would put a line of its own before the message
        from skinlesion.training.run import run

        run(config)


if __name__ == "__main__":
    sys.argv = without_plus(sys.argv, Path(__file__).parent / "conf")
    with clear_errors(config_dir="conf"):
        main()
