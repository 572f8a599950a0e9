"""What Keras has at the authors' cuts: keras_backbones.json, a pin for each backbone and cut."""

import json
from functools import cache
from pathlib import Path
from typing import Any

PINS = Path(__file__).with_name("keras_backbones.json")


@cache
def pins() -> dict[str, Any]:
    """Return what Keras has, by the backbone's name."""
    return json.loads(PINS.read_text(encoding="utf-8"))
