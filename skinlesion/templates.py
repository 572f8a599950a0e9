"""Templates (Jinja2): text stands in them, structure in code, and what is put in is escaped."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skinlesion.text import counted, interval, number, percent


@cache
def environment(folder: Path, kind: str) -> Environment:
    """Return the templates of a folder.

    Args:
        folder: where they are.
        kind: `html`, where Jinja escapes what is put in, or `md`, where `escape_markdown` does; all
            of it but what is `| safe`.
    """
    options: dict[str, Any] = {"html": {"autoescape": True}, "md": {"finalize": _in_markdown}}
    found = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options[kind],
    )
    found.filters |= {
        "counted": counted,
        "interval": interval,
        "number": number,
        "percent": percent,
    }
    return found


def escape_markdown(text: str) -> str:
    """Return text of which Markdown, also in a table, makes nothing but that text."""
    return re.sub(r"([\\`*<>\[\]|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def _in_markdown(value: Any) -> str:
    if hasattr(value, "__html__"):  # safe
        return str(value)
    return escape_markdown(" ".join(str(value).splitlines()))
