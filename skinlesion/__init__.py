"""Skin lesion classification with soft attention and metadata on HAM10000."""

from typing import Any

__all__ = ["load_run"]


def __getattr__(name: str) -> Any:
    """Import torch only for those who load a model."""
    if name == "load_run":
        from skinlesion.serving.model import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
