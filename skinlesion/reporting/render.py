"""Templates, and how what stands in them is escaped: by the kind of file that they make."""

import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from skinlesion.errors import listing
from skinlesion.text import counted, duration, interval, number, percent

TEMPLATES = Path(__file__).with_name("templates")
LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"\u2212": "$-$", "\u00b1": r"$\pm$", "\u2020": r"$\dagger$", "\u00b7": r"$\cdot$"},
}


def render(name: str, **context: Any) -> str:
    """Fill a template of templates/.

    What is put into an `.html` is escaped by Jinja, into an `.md` or `.tex` by the functions here,
    all of it but what is `| safe`; a `.txt` is for the terminal, or for another template.
    """
    return _environment(name.rpartition(".")[2]).get_template(name).render(context)


def escape_markdown(text: str) -> str:
    """Return text of which Markdown, also in a table, makes nothing but that text."""
    return re.sub(r"([\\`*<>\[\]|]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(LATEX.get(character, character) for character in text)


@cache
def _environment(kind: str) -> Environment:
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
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options[kind],
    )
    environment.filters |= {
        "duration": duration,
        "counted": counted,
        "interval": interval,
        "listing": listing,
        # What a table is sorted by, as JSON has it.
        "keys": lambda keys: [None if key != key else key for key in keys],
        "number": number,
        "percent": percent,
        "yaml": partial(yaml.safe_dump, sort_keys=False, allow_unicode=True),
        "several": lambda values: ", ".join(sorted({str(value) for value in values})),
        "pieces": lambda name: re.split(r"(?<=[a-z0-9])(?=[A-Z])", name),
    }
    return environment


def _escaping(escape: Callable[[str], str]) -> Callable[[Any], str]:
    """Return what escapes every value put into a template, lines joined, but what is `safe`."""
    return lambda value: (
        str(value) if hasattr(value, "__html__") else escape(" ".join(str(value).splitlines()))
    )
