"""The figures of a run, from its directory, and of an explained image."""

from skinlesion.reporting.figures.run import draw_run_figures, outdated

__all__ = ["draw_run_figures", "outdated"]
