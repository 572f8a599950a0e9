"""The side with Keras: what comes out of its models, and their weights as files for ours.

    python -m skinlesion.fidelity.keras_side record all.npz
    python -m skinlesion.fidelity.keras_side convert NASNet-mobile.h5 nasnet_mobile.safetensors

Runs in the environment of keras-requirements.txt, which has two Keras. What comes out is asked of
tf_keras, the Keras 2 that TensorFlow still maintains: layer by layer and weight by weight its
models are TensorFlow 2.12's, by whose indices the authors cut, but it runs on newer Pythons.
Keras 3 builds MobileNetV3 of fewer layers, but reads the files of both.
"""

import argparse
import io
import os
import platform
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# Plain float32 convolutions; the news of TensorFlow's start are of no interest here.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np

from skinlesion.errors import SkinlesionError, listing
from skinlesion.fidelity.cases import END, Layer, Reference, cuts, numbers, picture, pins
from skinlesion.fidelity.keras_weights import BACKBONES, write_weights

CLASSES = {"mobilenet_v3_large": "MobileNetV3Large", "nasnet_mobile": "NASNetMobile"}


def build(backbone: str, keras: Any, top: bool = True, weights: str | None = None) -> Any:
    """Return a model of Keras 2 or 3; without an activation its last layer gives logits."""
    create = getattr(keras.applications, CLASSES[backbone])
    last = {"classifier_activation": None} if top else {"input_shape": (224, 224, 3)}
    return create(weights=weights, include_top=top, **last)


def variables(model: Any) -> dict[str, Any]:
    """Return a model's variables by layer and variable, in the words of its Keras."""
    return {
        f"{layer.name}/{weight.name.rpartition('/')[2].removesuffix(':0')}": weight
        for layer in model.layers
        for weight in layer.weights
    }


def fill(backbone: str, model: Any) -> dict[str, Sequence[int]]:
    """Fill a model of Keras 2 with the drawn numbers; return the shapes of its weights."""
    found = variables(model)
    shapes: dict[str, Sequence[int]] = {name: tuple(v.shape) for name, v in found.items()}
    for name, values in numbers(backbone, shapes).items():
        found[name].assign(values)
    return shapes


def record(full: Path, goldens: Path | None) -> None:
    """Write what comes out of Keras at each cut and at the end: all values, and a sample of them.

    Raises:
        SkinlesionError: if this Keras has another layer at one of the authors' indices.
    """
    import tensorflow
    import tf_keras

    about = {m.__name__: m.__version__ for m in (tensorflow, tf_keras, np)}
    reference = Reference(about | {"python": platform.python_version()}, {}, {})
    image = picture().astype(np.float32)
    for backbone in BACKBONES:
        model = build(backbone, tf_keras)
        reference.weights[backbone] = fill(backbone, model)
        layers = {key: model.layers[-1 if key == END else key] for key in cuts(backbone)}
        for pin in pins()[backbone]["cuts"]:
            if (found := layers[pin["index"]].name) != pin["layer"]:
                raise SkinlesionError(f"layer {pin['index']} is {found}, expected {pin['layer']}.")
        cut = tf_keras.Model(model.input, [layer.output for layer in layers.values()])
        # MobileNetV3 begins with a Rescaling layer of its own.
        outputs = cut(image if backbone.startswith("mobilenet_v3") else image / 127.5 - 1)
        reference.layers[backbone] = {
            key: Layer.of(layer.name, model.layers.index(layer), value.numpy())
            for (key, layer), value in zip(layers.items(), outputs, strict=True)
        }
    reference.write(full)
    if goldens:
        reference.write(goldens, sampled=True)


@contextmanager
def _weights_file(file: Path) -> Iterator[Path]:
    """Yield a file under a name by which Keras chooses the reader that fits what is inside."""
    import h5py

    source: Any = file
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            source = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(source) as content:
        if "model_weights" in content or "layer_names" in content.attrs:
            name = "of.h5"
        elif "layers" in content:
            name = "of.weights.h5"
        else:
            raise SkinlesionError(
                f"{file} does not hold weights as Keras 3 reads them. TensorFlow 2.12 and older: "
                "save_weights to a name that ends in .h5, but not in .weights.h5."
            )
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(file.read_bytes() if source is file else source.getvalue())
        yield path


def _load(backbone: str, file: Path) -> dict[str, np.ndarray]:
    """Return a file's weights by Keras' names, with the classifier where the file has one."""
    import keras

    refusals = []
    try:
        with _weights_file(file) as path:
            for top in (True, False):
                model = build(backbone, keras, top)
                found = variables(model)
                for variable in found.values():
                    variable.assign(np.full(variable.shape, np.nan, np.float32))
                try:
                    with warnings.catch_warnings(action="ignore"):
                        model.load_weights(path)
                except (ValueError, KeyError) as error:
                    refusals.append(_first(error))
                    continue
                values = {name: variable.numpy() for name, variable in found.items()}
                empty = [name for name, value in values.items() if not np.isfinite(value).all()]
                if not empty:
                    return values
                refusals.append(f"missing or not finite: {listing(empty)}")
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise SkinlesionError(
            f"{file} cannot be read: it is damaged, or no .h5 or .keras file ({error})."
        ) from None
    raise SkinlesionError(f"{file} does not hold Keras' weights of {backbone}: {refusals[0]}")


def _first(error: Exception) -> str:
    """Return the first sentence of Keras' long ones."""
    return str(error).partition(" Example error")[0].partition("\n")[0]


def _download(backbone: str) -> tuple[dict[str, np.ndarray], str]:
    """Return keras.applications' own ImageNet weights, and where they come from."""
    import keras

    try:
        model = build(backbone, keras, weights="imagenet")
    except Exception as error:  # whatever the network and Keras' downloader raise
        raise SkinlesionError(
            f"Keras could not download its weights of {backbone} ({_first(error)}). "
            "Without a network name a file: convert FILE OUT"
        ) from None
    values = {name: variable.numpy() for name, variable in variables(model).items()}
    return values, f"keras.applications.{CLASSES[backbone]}, Keras {keras.__version__}, imagenet"


def convert(file: Path | None, out: Path, backbone: str) -> None:
    """Write weights of Keras, of one of BACKBONES, as a safetensors file for `weights=<file>`.

    They are in a `.h5` file, of weights or of a whole model, or a `.keras` file, with or without
    the classifier; None downloads Keras' own ImageNet weights. A SkinlesionError if the file cannot
    be had or read, or holds another architecture.
    """
    if out.suffix != ".safetensors":
        raise SkinlesionError(f"{out}: the name of the file to write must end in .safetensors.")
    if file and not file.is_file():
        raise SkinlesionError(f"{file}: no such file.")
    values, source = (_load(backbone, file), file.name) if file else _download(backbone)
    write_weights(out, backbone, values, source)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m skinlesion.fidelity.keras_side",
        description="What comes out of Keras' backbones, and their weights as files for ours.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record", help="write what comes out of Keras at every cut")
    recorder.add_argument("out", type=Path, help="all values (.npz)")
    recorder.add_argument("--goldens", type=Path, help="and a sample of them, for the tests")
    converter = commands.add_parser("convert", help="write Keras' weights for weights=<file>")
    converter.add_argument(
        "file", type=Path, nargs="?", help=".h5 or .keras; without it Keras downloads its own"
    )
    converter.add_argument("out", type=Path, help="the .safetensors file to write")
    converter.add_argument("--backbone", choices=BACKBONES, default="nasnet_mobile")
    options = parser.parse_args(arguments)
    try:
        if options.command == "record":
            record(options.out, options.goldens)
        else:
            convert(options.file, options.out, options.backbone)
    except SkinlesionError as error:
        sys.exit(f"error: {error}")
    print(options.out)


if __name__ == "__main__":
    main()
