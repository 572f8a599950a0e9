"""The page that shows a model in a browser: an image and its metadata in, an answer out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.components import Component

from skinlesion.data.demo import MIN_IMAGES, draw_images, metadata_of, plan
from skinlesion.data.encoding import UNKNOWN, Number, is_missing
from skinlesion.data.pixels import MOST_BYTES, read_image, to_square
from skinlesion.errors import SkinlesionError
from skinlesion.serving import answer as say
from skinlesion.serving.attention import explain
from skinlesion.serving.model import LesionModel
from skinlesion.serving.uploads import LEFT, read_upload

KEPT = 1800  # seconds that an image stays in memory for a page that is open
LEFT_OVER = (60, LEFT)  # seconds between sweeps of the uploads, and the age of what is swept
WAITING = 16  # requests
DRAWN_SIZE = (300, 225)
# A click anywhere in the samples, as the number of the sample.
PICK = """
element.addEventListener('click', event => {
  const button = event.target.closest('button');
  if (button) trigger('click', {index: Number(button.dataset.index)});
});
"""


def build_page(model: LesionModel, path: Path, uploads: Path) -> gr.Blocks:
    """Return the page.

    Args:
        model: what is shown.
        path: what it was loaded from.
        uploads: the private folder that Gradio writes uploads into.
    """
    names = model.properties
    drawn = draw_samples(model)

    def take(file: Any) -> tuple[Any, ...]:
        try:
            image = read_upload(file, uploads)
        except SkinlesionError as error:
            return None, None, say.PIECES.failure(str(error)), say.PIECES.waiting()
        return (
            None,
            to_square(image, model.size),
            say.preview(image, "Your image"),
            say.PIECES.waiting(),
        )

    def pick(event: gr.EventData) -> tuple[Any, ...]:
        label, file, metadata = drawn[event.index]
        image = read_image(file)
        return (
            to_square(image, model.size),
            say.preview(image, f"Drawing of {label}"),
            say.PIECES.waiting(),
            *(metadata.get(name) for name in names),
        )

    def classify(image: np.ndarray | None, *values: Any) -> str:
        if image is None:
            return say.PIECES.failure("There is no image yet: choose one, or a sample.")
        return answer_to(model, image, dict(zip(names, values, strict=True)))

    with gr.Blocks(
        title="skinlesion", analytics_enabled=False, delete_cache=LEFT_OVER, fill_width=False
    ) as page:
        _html(say.warning(model))
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
                button = gr.Button("Classify", variant="primary")
            with gr.Column(scale=3, min_width=300):
                answered = _html(say.PIECES.waiting())
        if drawn:
            labelled = [(label, file) for label, file, _ in drawn]
            pictures = _html(say.samples(labelled), js_on_load=PICK)
            _on(pictures.click, pick, None, [image, shown, answered, *fields])
        _html(say.about(model, path))
        # Gradio leaves None out of what it tells the page, which then shows, and sends, a 0.
        numbers = [field for field in fields if isinstance(field, gr.Number)]
        if numbers:
            page.load(None, None, numbers, js=f"() => {json.dumps([None] * len(numbers))}")
        _on(file.upload, take, [file], [file, image, shown, answered])
        _on(button.click, classify, [image, *fields], [answered], scroll_to_output=True)
    # One queue for all that needs the processor, and an end to it.
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def answer_to(model: LesionModel, image: np.ndarray, metadata: dict[str, Any]) -> str:
    """Return what a model says about an image (S, S, 3) uint8 of its input size, as HTML."""
    try:
        metadata = {name: _read(model, name, value) for name, value in metadata.items()}
    except SkinlesionError as error:
        return say.PIECES.failure(str(error))
    (prediction,) = model.predict_batch(image[None], [metadata])
    try:
        found: Any = explain(model, image, metadata)
    except SkinlesionError as error:  # a network without positions to look at
        found = str(error)
    return say.answer(model, prediction, metadata, found)


def draw_samples(model: LesionModel) -> list[tuple[str, bytes, dict[str, Any]]]:
    """Return a drawing of each of HAM10000's classes that a model has: label, JPEG, metadata."""
    lesions = {}
    for lesion in plan(MIN_IMAGES, seed=0):
        if lesion.rank == 1:  # some of the first have no metadata
            lesions[lesion.dx] = lesion
    drawn = []
    for label in (name for name in model.classes if name in lesions):
        described = metadata_of(lesions[label], seed=0)
        metadata: dict[str, Any] = {}
        for name in model.properties:
            value = described.get(name, "")
            number = isinstance(model.encoder.properties[name], Number)
            metadata[name] = (float(value) if value else None) if number else _chosen(value)
        drawn.append((label, draw_images(lesions[label], DRAWN_SIZE, seed=0)[0], metadata))
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


def _chosen(value: str) -> str:
    return "" if value == UNKNOWN else value


def _html(text: str = "", **options: Any) -> gr.HTML:
    """Return text in the style of page.css alone."""
    return gr.HTML(text, apply_default_css=False, **options)


def _field(model: LesionModel, name: str) -> Component:
    """Return the field of a property, empty."""
    known = model.encoder.properties[name]
    if isinstance(known, Number):
        return gr.Number(
            label=f"{name} ({known.low:g} to {known.high:g})", placeholder="unknown", value=None
        )
    choices = [(UNKNOWN, "")]
    choices += [
        (value if value in known.seen else f"{value} (not in training)", value)
        for value in known.values
        if value != UNKNOWN
    ]
    return gr.Dropdown(choices, value="", label=name)


def _on(
    event: Any, run: Callable[..., Any], inputs: Any, outputs: list[Any], **options: Any
) -> None:
    """Run a function on an event: one at a time, and from the page only.

    It gets what was sent as it was sent: Gradio's fields would repeat a wrong value in their
    errors.
    """
    event(
        run,
        inputs,
        outputs,
        concurrency_id="model",
        concurrency_limit=1,
        preprocess=False,
        api_visibility="private",
        show_progress="minimal",
        **options,
    )
