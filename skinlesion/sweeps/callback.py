"""What happens around a Hydra multirun: the axes of a sweep file, and the summary at its end."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from skinlesion.runs.outcome import read_outcomes, summary
from skinlesion.sweeps.jobs import parameters


class SweepCallback(Callback):
    """Gives Hydra's sweeper the axes of the sweep file, and says in the end what became of it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Sweep what the file's node `sweep` says; the command line wins over it."""
        if config.sweep is not None:
            with read_write(config.hydra):
                axes: Any = OmegaConf.to_container(config.sweep.axes)
                config.hydra.sweeper.params = parameters(axes)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print what became of every job; exit with code 1 unless all are done."""
        outcomes = read_outcomes(Path(config.hydra.sweep.dir) / "outcomes")
        print(f"\n{summary(outcomes)}")
        if any(outcome.status in ("failed", "elsewhere") for outcome in outcomes):
            print("The same command again goes on with what is missing.")
            sys.exit(1)
