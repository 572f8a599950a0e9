"""The templates of tables and reports, and the filters that only they have."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from skinlesion.templates import environment

TEMPLATES = Path(__file__).with_name("templates")
FILTERS = {
    # What a table is sorted by, as JSON has it.
    "keys": lambda keys: [None if key != key else key for key in keys],
    "yaml": partial(yaml.safe_dump, sort_keys=False, allow_unicode=True),
    "several": lambda values: ", ".join(sorted({str(value) for value in values})),
    "pieces": lambda name: re.split(r"(?<=[a-z0-9])(?=[A-Z])", name),
}


def render(name: str, **context: Any) -> str:
    """Fill a template of templates/, escaped as `environment` says for its ending."""
    templates = environment(TEMPLATES, name.rpartition(".")[2])
    templates.filters |= FILTERS
    return templates.get_template(name).render(context)
