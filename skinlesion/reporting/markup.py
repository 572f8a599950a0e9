"""HTML by construction: elements that escape what they hold, and tables that can be sorted."""

import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Key = float | str | None


class Html(str):
    """Text that is HTML already; any other is escaped where it is put in."""


def tag(name: str, /, *content: str | None, **attributes: object) -> Html:
    """Return an element.

    Args:
        name: of the element.
        content: HTML, or text, which is escaped; None is nothing.
        attributes: `class_` is class, `data_keys` data-keys; True stands alone, None and False are
            left out.
    """
    said = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inner = "".join(map(_escaped, content))
    void = name in ("img", "input", "br")
    return Html(f"<{name}{said}>" if void else f"<{name}{said}>{inner}</{name}>")


def join(pieces: Iterable[str], between: str = "") -> Html:
    """Return pieces of HTML or text after each other, text escaped."""
    return Html(_escaped(between).join(map(_escaped, pieces)))


@dataclass
class Line:
    """A line of a sortable table: its cells, the first of which names it, and their keys."""

    cells: Sequence[Html]
    keys: Sequence[Key]
    attributes: Mapping[str, object] = field(default_factory=dict)


def sortable(
    name: str, head: Sequence[str], words: int, lines: Sequence[Line], kind: str = "sortable"
) -> Html:
    """Lay out a table of single lines, the first `words` columns text and the rest numbers."""
    heads = [
        tag("th", text, scope="col", data_column=i, class_="word" if i < words else None)
        for i, text in enumerate(head)
    ]
    body = [
        tag("tr", *line.cells, data_keys=data_keys(line.keys), **line.attributes) for line in lines
    ]
    rows = tag("thead", tag("tr", *heads)), tag("tbody", join(body, "\n"))
    return scrolling(name, *rows, kind=kind)


def scrolling(name: str, *content: str, kind: str) -> Html:
    """Return a table of this class in a box that scrolls by itself, also by keyboard."""
    table = tag("table", tag("caption", name), *content, class_=kind)
    return tag("div", table, class_="scroll", role="region", aria_label=name, tabindex=0)


def data_keys(values: Sequence[Key]) -> str:
    """Return what a line or block is sorted by, a key each column, as the script reads it."""
    return json.dumps([None if _absent(value) else value for value in values])


def _absent(value: Key) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def breakable(text: str) -> Html:
    """Return a name that may be broken before its capitals: Mobile|Net|V3|Small."""
    return join(re.split(r"(?<=[a-z0-9])(?=[A-Z])", text), Html("<wbr>"))


def definitions(facts: Mapping[str, str]) -> Html:
    """Return names and what they are."""
    return tag("dl", *(join([tag("dt", k), tag("dd", v)]) for k, v in facts.items()))


def folded(title: str, *content: str) -> Html:
    """Return content that is shown once its title is pressed."""
    return tag("details", tag("summary", title), *content)


def _escaped(content: str | None) -> str:
    if content is None:
        return ""
    return content if isinstance(content, Html) else html.escape(str(content))
