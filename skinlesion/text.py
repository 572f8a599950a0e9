"""Numbers and tables as text for a person: the one place where numbers become words."""

import math
from collections.abc import Sequence

DASH = "-"  # what cannot be measured


def number(value: float | None, spec: str = "") -> str:
    """Return a number: three decimals for a share, fewer for what is larger; a dash for None, NaN.

    `spec` says how instead, as :func:`format` takes it; a lone `+` is the sign before the usual.
    """
    if value is None or math.isnan(value):
        return DASH
    if spec in ("", "+"):
        decimals = 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0
        spec = f"{spec}z,.{decimals}f"
    return format(value, spec)


def percent(value: float | None, decimals: int = 0) -> str:
    """Return a share in per cent, `42 %`."""
    return DASH if value is None or math.isnan(value) else f"{100 * value:.{decimals}f} %"


def interval(ends: tuple[float, float] | None, spec: str = "") -> str:
    """Return an interval, `0.814-0.859`; with a sign in brackets, `[-0.012, +0.031]`."""
    if ends is None or math.isnan(ends[0]):
        return DASH
    low, high = (number(end, spec) for end in ends)
    return f"[{low}, {high}]" if spec.startswith("+") else f"{low}-{high}"


def duration(seconds: float) -> str:
    """Return seconds as hours:minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 image`, `2,000 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def aligned(rows: Sequence[Sequence[str] | None], left: int = 1, gap: int = 3) -> str:
    """Lay rows of equally many cells out in columns, for a terminal; None is a rule across.

    The first `left` columns are flush left, the others flush right, `gap` spaces between them.
    """
    cells = [row for row in rows if row is not None]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "-" * (sum(widths) + gap * (len(widths) - 1))
    lines = []
    for row in rows:
        if row is None:
            lines.append(rule)
            continue
        laid = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * gap).join(laid).rstrip())
    return "\n".join(lines)
