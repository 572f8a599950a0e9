"""What the page says, as HTML: the warning, the answer about an image, what the model is.

Pictures travel inside the text (`data:` addresses), so that none lies on the disk or can be asked
for by anybody else. They are encoded anew from pixels: nothing that a camera wrote into the file,
such as where it was, is in them.
"""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skinlesion.serving.attention import COLOURS, Explanation, overlay, top_of_scale
from skinlesion.serving.model import LesionModel, Prediction
from skinlesion.runs.directory import RunDirectory

FULL_NAMES = {  # of HAM10000
    "akiec": "actinic keratosis / Bowen",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis-like lesion",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic naevus",
    "vasc": "vascular lesion",
}
PROTOCOLS = {
    "paper": "split by image: other photographs of a held-out lesion may have been trained on",
    "lesion": "split by lesion: no photograph of a held-out lesion was trained on",
}
PREVIEW = 480  # longest side, in pixels
WAITING = (
    '<p class="sl-waiting">The answer appears here: choose an image or a sample, then press '
    "<b>Classify</b>.</p>"
)


def full_name(label: str) -> str:
    """Return a class as a person reads it: HAM10000's seven in full, any other as it is."""
    return f"{FULL_NAMES[label]} ({label})" if label in FULL_NAMES else label


def warning(model: LesionModel) -> str:
    """Return what stands above all else."""
    dermoscopic = set(model.classes) <= set(FULL_NAMES)
    trained = (
        "It was trained on <b>dermoscopic images</b>, taken through a dermatoscope laid on the "
        "skin. On photographs of any other kind its answers mean nothing."
        if dermoscopic
        else "It was trained on the images of one data set. On images of any other kind its "
        "answers mean nothing."
    )
    return (
        '<header class="sl-head"><h1>skinlesion</h1>'
        "<p>What a trained network makes of an image of a skin lesion, and where it looks</p>"
        '</header><div class="sl-warning" role="note">'
        "<h2>Research software. No medical device. It says nothing about your skin.</h2>"
        f"<ul><li>{trained}</li>"
        f"<li>Every answer is one of its {len(model.classes)} classes, even for a picture of a "
        "cat.</li>"
        f"<li>It {'misses melanomas' if 'mel' in model.classes else 'makes mistakes'}. If a spot "
        "worries you, see a doctor.</li></ul></div>"
    )


def failure(message: str) -> str:
    """Return a message about wrong input."""
    return f'<div class="sl-failure sl-filled" role="alert">{escape(message)}</div>'


def preview(image: NDArray[np.uint8], name: str) -> str:
    """Return an image (H, W, 3) as it was read, made small, under its name."""
    picture = Image.fromarray(image)
    picture.thumbnail((PREVIEW, PREVIEW))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=88)
    said = f"{escape(name)}, {image.shape[1]} x {image.shape[0]} pixels"
    return (
        f'<figure class="sl-preview sl-filled"><img src="{as_address(file.getvalue(), "jpeg")}" '
        f'alt="the image that was chosen"><figcaption>{said}</figcaption></figure>'
    )


def samples(drawn: Sequence[tuple[str, bytes]]) -> str:
    """Return a button for each drawing: its class and its JPEG file."""
    buttons = "".join(
        f'<button type="button" data-index="{i}"><img src="{as_address(file, "jpeg")}" alt="">'
        f"<span>{escape(label)}</span></button>"
        for i, (label, file) in enumerate(drawn)
    )
    return (
        '<section class="sl-drawn"><h3>Samples</h3><p class="sl-note">Drawn by a program, one for '
        "each class, with made-up metadata. They are here to try the page; what a network says "
        f'about them means nothing.</p><div class="sl-samples">{buttons}</div></section>'
    )


def answer(
    model: LesionModel,
    prediction: Prediction,
    metadata: Mapping[str, Any],
    explanation: Explanation | str,
) -> str:
    """Return all that a model says about one image.

    Args:
        model: the model.
        prediction: what it said.
        metadata: by property, None or empty where unknown.
        explanation: where it looks, or why that cannot be shown.
    """
    label = prediction.label
    return (
        '<section class="sl-answer" aria-label="answer">'
        f"<h2>Most probable of {len(model.classes)}: {escape(full_name(label))}, "
        f"{_percent(prediction.probabilities[label])}</h2>"
        f"{_given(model, prediction, metadata)}{_bars(prediction)}{_raw(model, prediction)}"
        f"{_looks(model, explanation)}</section>"
    )


def about(model: LesionModel, path: Path) -> str:
    """Return what the model is.

    Args:
        model: the model.
        path: what it was loaded from; a run directory also says how well it did.
    """
    network = model.description["network"]
    attention = model.network.attention is not None
    rows = {
        "Backbone": f"{network['backbone']['name']}, {'with' if attention else 'without'} soft "
        f"attention, images of {model.size} x {model.size} pixels",
        "Reads": f"the image and {_and(model.properties)}"
        if model.properties
        else "the image alone",
        "Classes": "; ".join(full_name(name) for name in model.classes),
        **_report(path),
        "Calibration": f"temperature {model.temperature:.2f}: the logits are divided by it, so "
        f"that the probabilities are {'less' if model.temperature > 1 else 'more'} sure",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in rows.items())
    return f'<section class="sl-about"><h3>The model</h3><dl>{listed}</dl></section>'


def as_address(file: bytes, kind: str) -> str:
    """Return a `data:` address of an image file."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def _report(path: Path) -> dict[str, str]:
    """Return what a run directory says of its protocol and its held-out part; {} for a file."""
    directory = RunDirectory(path.parents[1] if path.suffix == ".ckpt" else path)
    if not (file := directory.path / "metrics.json").is_file():
        return {}
    metrics = json.loads(file.read_text())
    part = "test" if "test" in metrics["parts"] else "val"
    values = metrics["parts"][part]
    chose = (
        f"{values['n']:,} test images, which selected nothing"
        if part == "test"
        else f"{values['n']:,} validation images, which also selected the checkpoint: it flatters"
    )
    protocol = metrics["protocol"]
    said = {
        "Protocol": f"{protocol}, {PROTOCOLS[protocol]}" if protocol in PROTOCOLS else protocol,
        "Held-out accuracy": f"{_percent(values['accuracy'])}, balanced "
        f"{_percent(values['balanced_accuracy'])}, on {chose}",
    }
    if (melanoma := values["per_class"].get("mel")) and melanoma["support"]:
        said["Melanomas"] = (
            f"of the {melanoma['support']} held out it recognised {_percent(melanoma['recall'])}"
        )
    if directory.config.data.get("demo") is not None:
        said["Data"] = "drawn by a program (data=demo): it has never seen skin"
    return said


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + [names[-1]])


def _given(model: LesionModel, prediction: Prediction, metadata: Mapping[str, Any]) -> str:
    if not model.properties:
        return '<p class="sl-given">From the image alone: this model reads no metadata.</p>'
    used = [
        f"{name} <b>{escape(f'{value:g}' if isinstance(value, float | int) else str(value))}</b>"
        for name, value in metadata.items()
        if name in model.properties and name not in prediction.missing
    ]
    parts = [f"From the image, {', '.join(used)}." if used else "From the image."]
    if prediction.missing:
        parts.append(f"Not used, because unknown: <b>{escape(_and(prediction.missing))}</b>.")
    return f'<p class="sl-given">{" ".join(parts)}</p>'


def _bars(prediction: Prediction) -> str:
    lines = "".join(
        f'<li data-class="{escape(name)}"{" class=sl-first" if name == prediction.label else ""}>'
        f'<span class="sl-name">{escape(full_name(name))}</span>'
        f'<span class="sl-bar"><i style="width:{100 * share:.2f}%"></i></span>'
        f'<span class="sl-share">{_percent(share)}</span></li>'
        for name, share in prediction.probabilities.items()
    )
    return f'<ul class="sl-bars" aria-label="calibrated probabilities">{lines}</ul>'


def _raw(model: LesionModel, prediction: Prediction) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{prediction.probabilities[name]:.4f}</td>'
        f"<td>{prediction.raw[name]:.4f}</td></tr>"
        for name in prediction.probabilities
    )
    return (
        "<details><summary>Probabilities in figures, calibrated and raw</summary><table>"
        '<thead><tr><th scope="col">class</th><th scope="col">calibrated</th>'
        f'<th scope="col">raw</th></tr></thead><tbody>{lines}</tbody></table>'
        '<p class="sl-note">Raw is what the network itself says. Calibrated is after temperature '
        f"scaling with {model.temperature:.2f}, fitted on the validation images: of the "
        "images given 80 %, about 80 % should be right, if they are like the images it was trained "
        "on.</p></details>"
    )


def _looks(model: LesionModel, found: Explanation | str) -> str:
    head = "<h3>Where the network looks</h3>"
    if isinstance(found, str):
        return f'{head}<p class="sl-note">{escape(found)}</p>'
    size = len(found.image)
    figures = [
        _figure(
            found.image,
            "What it sees",
            f"The middle square of the image, {size} x {size} pixels.",
        )
    ]
    without = ""
    if (attention := found.attention) is None:
        without = " This network has no soft attention."
    else:
        high = top_of_scale(attention)
        figures.append(
            _figure(
                overlay(found.image, attention, high),
                "Soft attention",
                "How much weight each place gets, whatever the class: 1 is looking everywhere "
                f"alike; here {attention.min():.2f} to {attention.max():.2f}.",
                ("0", f"{high:.1f} x its mean"),
            )
        )
    nothing = "" if found.cam.any() else " Nothing in this image does."
    figures.append(
        _figure(
            overlay(found.image, found.cam, 1),
            f"Grad-CAM for {found.target}",
            f"Which places speak for {full_name(found.target)}.{nothing}",
            ("not", "most"),
        )
    )
    grid = " x ".join(map(str, found.cam.shape))
    return (
        f'{head}<div class="sl-pictures">{"".join(figures)}</div>'
        f'<p class="sl-note">The maps have {grid} places, enlarged. They show where the network '
        f"looks, not why, nor whether it is right.{without}</p>"
    )


def _figure(
    image: NDArray[np.uint8], title: str, said: str, scale: tuple[str, str] | None = None
) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    ends = (
        f'<span class="sl-scale"><span>{escape(scale[0])}</span><i style="background:'
        f'{_gradient()}"></i><span>{escape(scale[1])}</span></span>'
        if scale
        else ""
    )
    return (
        f'<figure><img src="{as_address(file.getvalue(), "png")}" alt="{escape(title)}">'
        f"<figcaption><b>{escape(title)}</b>{ends}<span>{escape(said)}</span></figcaption></figure>"
    )


def _gradient() -> str:
    """Return the colours of an overlay as CSS, dark to bright."""
    from matplotlib import colormaps, colors

    stops = (colors.to_hex(colormaps[COLOURS](share)) for share in np.linspace(0, 1, 8))
    return f"linear-gradient(90deg,{','.join(stops)})"
