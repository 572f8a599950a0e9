"""A trained run as files to carry away. Here: the formats, and the packages that they need."""

from importlib.util import find_spec
from typing import NamedTuple

from skinlesion.errors import SkinlesionError


class Format(NamedTuple):
    """A format: its file, what it is for, and which extra of this package brings what it needs."""

    file: str
    about: str
    extra: str = ""
    packages: tuple[str, ...] = ()


ONNX = ("export", ("onnx", "onnxruntime", "onnxscript"))
PHONE = ("phone", ("executorch",))
FORMATS = {
    "safetensors": Format(
        "model.safetensors", "PyTorch: weights, and all that feeds and reads them"
    ),
    "onnx": Format("model.onnx", "ONNX Runtime and others, float32", *ONNX),
    "int8": Format("model.int8.onnx", "ONNX Runtime, convolutions in eight bits", *ONNX),
    "phone": Format("model.pte", "ExecuTorch with XNNPACK, float32, one image at a time", *PHONE),
}
USUAL = "safetensors,onnx,int8"


def choose(text: str) -> tuple[str, ...]:
    """Return the formats of a list with commas, in the order of FORMATS; int8 is made of onnx.

    Raises:
        SkinlesionError: if there is no such format, or a package that one needs is not installed.
    """
    names = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(names - set(FORMATS))
    if unknown or not names:
        raise SkinlesionError(
            f"--formats: there is no {', '.join(unknown)}, expected some of {', '.join(FORMATS)}."
        )
    if "int8" in names:
        names.add("onnx")
    for name in names:
        known = FORMATS[name]
        if missing := [package for package in known.packages if find_spec(package) is None]:
            raise SkinlesionError(
                f"--formats {name}: not installed: {', '.join(missing)}. pip install "
                f"'skinlesion[{known.extra}]', or choose other formats."
            )
    return tuple(name for name in FORMATS if name in names)
