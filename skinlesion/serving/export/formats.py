"""The formats of an export: their files, and the packages that they need."""

from importlib.util import find_spec

from skinlesion.errors import SkinlesionError

FILES = {
    "safetensors": "model.safetensors",
    "onnx": "model.onnx",
    "int8": "model.int8.onnx",
    "phone": "model.pte",
}
USUAL = ("safetensors", "onnx", "int8")
ABOUT = {
    "safetensors": "PyTorch: weights, and all that feeds and reads them",
    "onnx": "ONNX Runtime and others, float32",
    "int8": "ONNX Runtime, convolutions in eight bits",
    "phone": "ExecuTorch with XNNPACK, float32, one image at a time",
}
EXTRAS = {  # extra: which formats need it, and its packages
    "export": (("onnx", "int8"), ("onnx", "onnxruntime", "onnxscript")),
    "phone": (("phone",), ("executorch",)),
}


def choose(said: str, phone: bool = False) -> tuple[str, ...]:
    """Return the formats of a list with commas, in the order of FILES.

    Args:
        said: as typed.
        phone: whether `phone` is one of them in any case.

    Raises:
        SkinlesionError: if there is no such format, or a package that one needs is not installed.
    """
    named = {name.strip() for name in said.split(",") if name.strip()}
    if phone:
        named.add("phone")
    if unknown := sorted(named - set(FILES)):
        raise SkinlesionError(
            f"--formats: there is no {', '.join(unknown)}, expected some of {', '.join(FILES)}."
        )
    if not named:
        raise SkinlesionError(f"--formats: expected some of {', '.join(FILES)}.")
    for extra, (needing, packages) in EXTRAS.items():
        asked = [name for name in needing if name in named]
        missing = [name for name in packages if find_spec(name) is None]
        if asked and missing:
            raise SkinlesionError(
                f"--formats {','.join(asked)}: not installed: {', '.join(missing)}. "
                f"pip install 'skinlesion[{extra}]', or choose other formats."
            )
    return tuple(name for name in FILES if name in named)
