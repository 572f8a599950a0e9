"""Train and evaluate one run, or a sweep of runs: `python train.py --help`."""

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from skinlesion.cli import as_hydra_reads, quick_imports, report_errors
from skinlesion.errors import SkinlesionError, disk_problem


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> Any:
    """Train what the config says; torch is imported only here, so that --help is quick."""
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        from skinlesion.sweeps.job import run_job

        return run_job(config)  # an outcome: a job that fails does not stop the others

    with quick_imports():
        from skinlesion.training.run import run

    # Answered here, or Hydra would put a line of its own before the message.
    with report_errors(resumes=True):
        if config.sweep is not None:
            raise SkinlesionError(f"'{config.sweep.title}' is a sweep of many runs: add -m.")
        directory = run(config)
        from skinlesion.evaluation.command import summarise

        try:  # after DONE: no run is lost to a figure, nor to a machine without matplotlib
            from skinlesion.reporting.figures import draw_run_figures, outdated

            if outdated(directory):
                draw_run_figures(directory)
        except (ImportError, OSError) as error:
            print(f"figures are missing: {disk_problem(error) or error}", file=sys.stderr)
        summarise(directory)


if __name__ == "__main__":
    with report_errors(config_dir="conf", resumes=True):
        sys.argv = as_hydra_reads(sys.argv, Path(__file__).parent / "conf")
        main()
