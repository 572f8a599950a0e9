"""The figures of a run, from its directory: what is measured in `part`, a module for each kind."""

from skinlesion.reporting.figures.run import draw_run_figures, outdated

__all__ = ["draw_run_figures", "outdated"]
