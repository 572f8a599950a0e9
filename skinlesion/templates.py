"""Templates (Jinja2): text stands in them, structure in code, and what is put in is escaped."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skinlesion.errors import listing
from skinlesion.text import counted, duration, interval, number, percent

LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"\u2212": "$-$", "\u00b1": r"$\pm$", "\u2020": r"$\dagger$", "\u00b7": r"$\cdot$"},
}
FILTERS = (counted, duration, interval, listing, number, percent)


def escape_markdown(text: str) -> str:
    """Return text of which Markdown, also in a table, makes nothing but that text."""
    return re.sub(r"([\\`*<>\[\]|&~]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(LATEX.get(character, character) for character in text)


@cache
def environment(folder: Path, kind: str) -> Environment:
    """Return the templates of a folder, to which its room adds filters of its own.

    The kind is the ending of what they make. What is put into `html` is escaped by Jinja, into `md`
    or `tex` by the functions here, all of it but what is `| safe`; `txt` is for the terminal, or
    for another template.
    """
    options: dict[str, Any] = {
        "html": {"autoescape": True},
        "txt": {},
        "md": {"finalize": _escaping(escape_markdown)},
        # Braces are LaTeX's own.
        "tex": {
            "finalize": _escaping(escape_latex),
            **{"variable_start_string": "<<", "variable_end_string": ">>"},
            **{"block_start_string": "<%", "block_end_string": "%>"},
            **{"comment_start_string": "<#", "comment_end_string": "#>"},
        },
    }
    found = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options[kind],
    )
    found.filters |= {known.__name__: known for known in FILTERS}
    return found


def _escaping(escape: Callable[[str], str]) -> Callable[[Any], str]:
    """Return what escapes every value put into a template, lines joined, but what is `safe`."""
    return lambda value: (
        str(value) if hasattr(value, "__html__") else escape(" ".join(str(value).splitlines()))
    )
