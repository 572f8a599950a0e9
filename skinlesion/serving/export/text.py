"""Pieces of text that the model card and the table have in common."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lay rows out as a Markdown table, the first one its head; after `left` columns, numbers."""
    rule = ["---" if i < left else "---:" for i in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [rows[0], rule, *rows[1:]])


def latency(about: Mapping[str, Any]) -> str:
    """Return a file's latency as text: median and quartiles in ms."""
    if (found := about.get("latency_ms")) is None:
        return "not measured"
    return f"{_ms(found['median'])} ({_ms(found['q25'])}-{_ms(found['q75'])})"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def percent(share: float, digits: int = 0) -> str:
    """Return a share in [0, 1] as text."""
    return f"{100 * share:.{digits}f} %"
