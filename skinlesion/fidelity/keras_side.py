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
from skinlesion.fidelity.cases import END, Layer, Layers, cuts, numbers, picture, write
from skinlesion.fidelity.keras_weights import BACKBONES, weights_of, write_weights
from skinlesion.fidelity.pins import pins

CLASSES = {"mobilenet_v3_large": "MobileNetV3Large", "nasnet_mobile": "NASNetMobile"}


def _build(backbone: str, keras: Any, top: bool = True, weights: str | None = None) -> Any:
    create = getattr(keras.applications, CLASSES[backbone])
    # Without an activation the last layer gives logits; the layers and their number stay.
    last = {"classifier_activation": None} if top else {"input_shape": (224, 224, 3)}
    return create(weights=weights, include_top=top, **last)


def _plain(name: str) -> str:
    """Return a weight's name as Keras 2 and 3 agree on it."""
    layer, _, variable = name.removesuffix(":0").rpartition("/")
    layer = layer.replace("/", "_").lower().replace("batchnorm", "bn")
    # Keras 3 names the kernel of a DepthwiseConv2D as any other.
    if variable == "depthwise_kernel" and not layer.startswith("separable"):
        variable = "kernel"
    return f"{layer}/{variable}"


def _variables(backbone: str, model: Any) -> dict[str, Any]:
    """Return a model's variables by Keras 2's names.

    Raises:
        SkinlesionError: if they are not those that we know.
    """
    found = {}
    for layer in model.layers:
        for weight in layer.weights:
            found[_plain(f"{layer.name}/{weight.name.rpartition('/')[2]}")] = weight
    wanted = {_plain(weight.keras): weight.keras for weight in weights_of(backbone)}
    if unknown := found.keys() - wanted.keys():
        raise SkinlesionError(
            f"this Keras' {backbone} has other weights: {listing(sorted(unknown))}."
        )
    return {wanted[name]: variable for name, variable in found.items()}


def outputs(backbone: str) -> dict[int | str, Layer]:
    """Return what comes out of Keras' model at each cut and at the end, in evaluation mode.

    Raises:
        SkinlesionError: if this Keras has another layer at one of the authors' indices.
    """
    import tf_keras

    model = _build(backbone, tf_keras)
    values = numbers(backbone)
    for name, variable in _variables(backbone, model).items():
        variable.assign(values[name])
    image = picture().astype(np.float32)
    # MobileNetV3 begins with a Rescaling layer of its own.
    fed = image if backbone.startswith("mobilenet_v3") else image / 127.5 - 1
    layers = {key: model.layers[-1 if key == END else key] for key in cuts(backbone)}
    for pin in pins()[backbone]["cuts"]:
        if (found := layers[pin["index"]].name) != pin["layer"]:
            raise SkinlesionError(f"layer {pin['index']} is {found}, expected {pin['layer']}.")
    cut = tf_keras.Model(model.input, [layer.output for layer in layers.values()])
    return {
        key: Layer.of(layer.name, model.layers.index(layer), value.numpy())
        for (key, layer), value in zip(layers.items(), cut(fed), strict=True)
    }


def record(full: Path, goldens: Path | None) -> None:
    """Write what comes out of Keras: all values, and a sample of them."""
    import tensorflow
    import tf_keras

    layers: Layers = {backbone: outputs(backbone) for backbone in BACKBONES}
    about = {
        "tensorflow": tensorflow.__version__,
        "tf_keras": tf_keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    write(full, layers, about)
    if goldens:
        few: Layers = {
            backbone: {key: layer.sampled() for key, layer in outputs.items()}
            for backbone, outputs in layers.items()
        }
        write(goldens, few, about)


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
        if source is file:
            path.symlink_to(file.resolve())
        else:
            path.write_bytes(source.getvalue())
        yield path


def _load(backbone: str, file: Path) -> dict[str, np.ndarray]:
    """Return a file's weights by Keras' names, with the classifier where the file has one."""
    import keras

    refusals = []
    try:
        with _weights_file(file) as path:
            for top in (True, False):
                model = _build(backbone, keras, top)
                variables = _variables(backbone, model)
                for variable in variables.values():
                    variable.assign(np.full(variable.shape, np.nan, np.float32))
                try:
                    with warnings.catch_warnings(action="ignore"):
                        model.load_weights(path)
                except (ValueError, KeyError) as error:
                    refusals.append(_first(error))
                    continue
                values = {name: variable.numpy() for name, variable in variables.items()}
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
        model = _build(backbone, keras, weights="imagenet")
    except Exception as error:  # whatever the network and Keras' downloader raise
        raise SkinlesionError(
            f"Keras could not download its weights of {backbone} ({_first(error)}). "
            "Without a network name a file: convert FILE OUT"
        ) from None
    values = {name: weight.numpy() for name, weight in _variables(backbone, model).items()}
    return values, f"keras.applications.{CLASSES[backbone]}, Keras {keras.__version__}, imagenet"


def convert(file: Path | None, out: Path, backbone: str) -> None:
    """Write weights of Keras as a safetensors file for `weights=<file>`.

    Args:
        file: a `.h5` file of weights or of a whole model, or a `.keras` file, with or without the
            classifier; None downloads Keras' own ImageNet weights.
        out: the file to write.
        backbone: one of BACKBONES.

    Raises:
        SkinlesionError: if the file cannot be had or read, or holds another architecture.
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
            print(options.out)
    except SkinlesionError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
