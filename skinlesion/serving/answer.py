"""What the page says, as HTML (templates/page.html): the warning, the answer, what the model is.

Pictures travel inside the text (`data:` addresses), so that none lies on the disk or can be asked
for by anybody else. They are encoded anew from pixels: nothing that a camera wrote into the file,
such as where it was, is in them.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.attention import COLOURS, Explanation, explain, overlay, top_of_scale
from skinlesion.serving.model import LesionModel, run_directory
from skinlesion.templates import environment

TEMPLATES = Path(__file__).with_name("templates")
PREVIEW = 480  # longest side, in pixels
FULL_NAMES = {  # of HAM10000
    "akiec": "actinic keratosis / Bowen",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}


def full_name(label: str) -> str:
    """Return a class as a person reads it: HAM10000's seven in full, any other as it is."""
    return f"{FULL_NAMES[label]} ({label})" if label in FULL_NAMES else label


_templates = environment(TEMPLATES, "html")
_templates.filters["full_name"] = full_name
PIECES: Any = _templates.get_template("page.html").module  # the macros of the page


def warning(model: LesionModel) -> str:
    """Return what stands above all else."""
    return PIECES.warning(model.classes, set(model.classes) <= set(FULL_NAMES))


def preview(image: NDArray[np.uint8], name: str) -> str:
    """Return an image (H, W, 3) as it was read, made small, under its name."""
    picture = Image.fromarray(image)
    picture.thumbnail((PREVIEW, PREVIEW))
    caption = f"{name}, {image.shape[1]} x {image.shape[0]} pixels"
    return PIECES.preview(_encoded(picture, "jpeg"), caption)


def samples(drawn: Sequence[tuple[str, bytes, Any]]) -> str:
    """Return a button for each drawing: its class and its JPEG file."""
    return PIECES.samples([(label, _address(file, "jpeg")) for label, file, _ in drawn])


def answer(model: LesionModel, image: NDArray[np.uint8], metadata: Mapping[str, Any]) -> str:
    """Return what a model says about an image (S, S, 3) of its size, and where it looks."""
    (prediction,) = model.predict_batch(image[None], [metadata])
    pictures: dict[str, Any] = {}
    try:
        explained: Any = explain(model, image, metadata)
        pictures = _pictures(explained)
    except SkinlesionError as error:  # a network without positions to look at
        explained = str(error)
    return PIECES.answer(model, prediction, metadata, pictures, explained)


def about(model: LesionModel, path: Path) -> str:
    """Return what a model is, and how well it did where it was loaded from a run."""
    directory, config, part = run_directory(path), None, None
    if directory.predictions.is_file():
        config = OmegaConf.to_container(directory.config)
        part = Measured.reported(read_predictions(directory.predictions))
    return PIECES.about(model, model.network.attention is not None, config, part)


def _pictures(explained: Explanation) -> dict[str, Any]:
    """Return the addresses of the pictures, and the colours of their scales."""
    from matplotlib import colormaps, colors

    image, attention = explained.image, explained.attention
    found: dict[str, Any] = {
        "seen": _encoded(Image.fromarray(image)),
        "cam": _encoded(Image.fromarray(overlay(image, explained.cam, 1))),
        "gradient": [colors.to_hex(colormaps[COLOURS](share)) for share in np.linspace(0, 1, 8)],
    }
    if attention is not None:
        high = top_of_scale(attention)
        drawn = Image.fromarray(overlay(image, attention, high))
        found |= {"high": high, "attention": _encoded(drawn)}
    return found


def _encoded(picture: Image.Image, kind: str = "png") -> str:
    file = io.BytesIO()
    picture.save(file, kind, quality=88)
    return _address(file.getvalue(), kind)


def _address(file: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
