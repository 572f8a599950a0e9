"""The page that shows a model in a browser: an image and its metadata in, an answer out.

What it says is HTML of templates/page.html. Pictures travel inside the text (`data:` addresses), so
that none lies on the disk or can be asked for by anybody else. They are encoded anew from pixels:
nothing that a camera wrote into the file, such as where it was, is in them.
"""

import base64
import io
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component
from matplotlib import colormaps, colors
from numpy.typing import NDArray
from omegaconf import OmegaConf
from PIL import Image

from skinlesion.data.demo import MIN_IMAGES, draw_images, metadata_of, plan
from skinlesion.data.encoding import UNKNOWN, Number, is_missing
from skinlesion.data.ham10000 import CLASSES, full_name
from skinlesion.data.pixels import MOST_BYTES, read_image, to_square
from skinlesion.data.views import VIEWS
from skinlesion.errors import SkinlesionError
from skinlesion.evaluation.measured import Measured
from skinlesion.runs.predictions import read_predictions
from skinlesion.serving.attention import COLOURS, explain, overlay, top_of_scale
from skinlesion.serving.model import LesionModel, run_directory
from skinlesion.serving.uploads import LEFT, read_upload
from skinlesion.templates import environment

Pixels = NDArray[np.uint8]

TEMPLATES = Path(__file__).with_name("templates")
STYLE = TEMPLATES / "page.css"
PREVIEW = 480  # longest side, in pixels
KEPT = 1800  # seconds that an image stays in memory for a page that is open
LEFT_OVER = (60, LEFT)  # seconds between sweeps of the uploads, and the age of what is swept
WAITING = 16  # requests
DRAWN_SIZE = (300, 225)
# How a function runs on an event: one at a time, and from the page only. It gets what was sent as
# it was sent: Gradio's fields would repeat a wrong value in their errors.
ALONE: dict[str, Any] = {
    "concurrency_id": "model",
    "concurrency_limit": 1,
    "preprocess": False,
    "api_visibility": "private",
    "show_progress": "minimal",
}
_html = partial(gr.HTML, apply_default_css=False)  # in the style of page.css alone


def _address(image: Pixels, kind: str = "png") -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


_templates = environment(TEMPLATES, "html")
_templates.filters |= {
    "address": _address,
    "full_name": full_name,
    "overlay": overlay,
    "top_of_scale": top_of_scale,
}
_colours = [colors.to_hex(colormaps[COLOURS](share)) for share in np.linspace(0, 1, 8)]
_templates.globals["gradient"] = _colours
PIECES: Any = _templates.get_template("page.html").module  # the macros of the page


def build_page(model: LesionModel, path: Path, uploads: Path) -> gr.Blocks:
    """Return the page of a model that was loaded from a path.

    `uploads` is the private folder that Gradio writes uploads into.
    """
    names = model.properties
    drawn = _draw_samples(model)
    waiting = PIECES.waiting()

    def take(file: Any) -> tuple[Any, ...]:
        try:
            image = read_upload(file, uploads)
        except SkinlesionError as error:
            return None, None, PIECES.failure(str(error)), waiting
        return None, to_square(image, model.size), preview(image, "Your image"), waiting

    def pick(event: gr.EventData) -> tuple[Any, ...]:
        label, image, metadata = drawn[event.index]
        shown = preview(image, f"Drawing of {label}")
        return to_square(image, model.size), shown, waiting, *(metadata[name] for name in names)

    def classify(image: np.ndarray | None, tta: Any, doubts: Any, *values: Any) -> str:
        if image is None:
            return PIECES.failure("There is no image yet: choose one, or a sample.")
        try:
            model.tta = tta if tta in [*VIEWS] else None  # whatever was sent
            known = {n: _read(model, n, value) for n, value in zip(names, values, strict=True)}
            return answer(model, image, known, doubts is True)
        except SkinlesionError as error:
            return PIECES.failure(str(error))

    with gr.Blocks(
        title="skinlesion", analytics_enabled=False, delete_cache=LEFT_OVER, fill_width=False
    ) as page:
        _html(PIECES.warning(model.classes, {*model.classes} <= {*CLASSES}))
        image = gr.State(time_to_live=KEPT)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                # No file types: they are told by names, and a name says nothing of the content.
                file = gr.File(
                    label=f"Image: JPEG, PNG or WebP, at most {MOST_BYTES / 1e6:.0f} MB",
                    height=160,
                )
                shown = _html(elem_classes="sl-shown")
                fields = [_field(model, name) for name in names]
                choices = [("the image as it is", ""), *((_views(n), n) for n in VIEWS)]
                tta = gr.Dropdown(choices, value=model.tta or "", label="what is looked at")
                doubts = gr.Checkbox(
                    label="say where it is not sure enough", visible=model.sure is not None
                )
                button = gr.Button("Classify", variant="primary")
            with gr.Column(scale=3, min_width=300):
                answered = _html(waiting)
        if drawn:
            pictures = _html(PIECES.samples(drawn), js_on_load=(TEMPLATES / "pick.js").read_text())
            pictures.click(pick, None, [image, shown, answered, *fields], **ALONE)
        _html(about(model, path))
        # Gradio leaves None out of what it tells the page, which then shows, and sends, a 0.
        numbers = [field for field in fields if isinstance(field, gr.Number)]
        if numbers:
            page.load(None, None, numbers, js=f"() => {json.dumps([None] * len(numbers))}")
        file.upload(take, [file], [file, image, shown, answered], **ALONE)
        button.click(
            classify, [image, tta, doubts, *fields], [answered], scroll_to_output=True, **ALONE
        )
    # One queue for all that needs the processor, and an end to it.
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def preview(image: Pixels, name: str) -> str:
    """Return an image (H, W, 3) as it was read, made small, under its name."""
    picture = Image.fromarray(image)
    picture.thumbnail((PREVIEW, PREVIEW))
    caption = f"{name}, {image.shape[1]} x {image.shape[0]} pixels"
    return PIECES.preview(np.asarray(picture), caption)


def answer(
    model: LesionModel, image: Pixels, metadata: Mapping[str, Any], doubts: bool = False
) -> str:
    """Return what a model says about an image (S, S, 3) of its size, and where it looks.

    Where there are doubts and it is not sure enough, it says so before the class.
    """
    (prediction,) = model.predict_batch(image[None], [metadata])
    try:
        explained: Any = explain(model, image, metadata)
    except SkinlesionError as error:  # a network without positions to look at
        explained = str(error)
    unsure = doubts and not prediction.sure
    return PIECES.answer(model, prediction, metadata, explained, unsure)


def _views(tta: str) -> str:
    return f"{tta}: the mean of {VIEWS[tta]} views, {VIEWS[tta]} times the time"


def about(model: LesionModel, path: Path) -> str:
    """Return what a model is, and how well it did where it was loaded from a run."""
    directory, config, part = run_directory(path), None, None
    if directory.predictions.is_file():
        config = OmegaConf.to_container(directory.config)
        part = Measured.reported(read_predictions(directory.predictions))
    return PIECES.about(model, hasattr(model.network.attention, "maps"), config, part)


def _draw_samples(model: LesionModel) -> list[tuple[str, Pixels, dict[str, Any]]]:
    """Return a drawing of each of HAM10000's classes that a model has: label, pixels, metadata."""
    # The second of each class: some of the first have no metadata.
    lesions = {lesion.dx: lesion for lesion in plan(MIN_IMAGES, seed=0) if lesion.rank == 1}
    drawn = []
    for label in (name for name in model.classes if name in lesions):
        told = metadata_of(lesions[label], seed=0)
        known: dict[str, Any] = {}
        for name in model.properties:
            value = told.get(name, "").replace(UNKNOWN, "")
            number = isinstance(model.encoder.properties[name], Number)
            known[name] = value if not number else float(value) if value else None
        file, _ = draw_images(lesions[label], DRAWN_SIZE, seed=0)[0]
        drawn.append((label, read_image(file), known))
    return drawn


def _read(model: LesionModel, name: str, value: Any) -> float | str | None:
    """Return a value that was sent, as the model knows it: nothing that was sent is repeated."""
    known = model.encoder.properties[name]
    try:
        return None if is_missing(value) else known.read(name, value)
    except SkinlesionError:
        expected = (
            f"a number from {known.low:g} to {known.high:g}"
            if isinstance(known, Number)
            else f"one of {', '.join(known.values)}"
        )
        raise SkinlesionError(f"{name}: expected {expected}.") from None


def _field(model: LesionModel, name: str) -> Component:
    """Return the field of a property, empty."""
    known = model.encoder.properties[name]
    if isinstance(known, Number):
        label = f"{name} ({known.low:g} to {known.high:g})"
        return gr.Number(label=label, placeholder=UNKNOWN, value=None)
    choices = [(UNKNOWN, "")]
    for value in known.values:
        if value != UNKNOWN:
            choices.append((value if value in known.seen else f"{value} (not in training)", value))
    return gr.Dropdown(choices, value="", label=name)
