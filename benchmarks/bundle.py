"""``make gpu-bundle``: what a machine without a network lacks, in one folder, for ``make gpu``."""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from skinlesion.cli import report_errors
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing_folder

LOCK = Path(__file__).parents[1] / "requirements.lock"
MIB, LIMIT = 2**20, 60 * 2**20  # bytes
# What training, tests/gpu, benchmarks and tables import, and an image with torch, torchvision,
# pytorch-lightning, numpy and pandas may lack. Without albumentations augmentation is on the device
# only, without matplotlib no figure is drawn: either is larger than all of these together.
PACKAGES = (
    *("timm", "huggingface-hub", "safetensors", "filelock", "tqdm", "pyyaml", "packaging"),
    *("hydra-core", "omegaconf", "antlr4-python3-runtime", "jinja2", "markupsafe"),
    *("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions"),
    *("requests", "urllib3", "certifi", "charset-normalizer", "idna"),
    *("httpx2", "httpcore2", "truststore", "anyio", "h11"),
    *("pytest", "pluggy", "iniconfig", "pygments"),
)
BUILT = ("antlr4-python3-runtime",)  # of which there is no wheel, only pure Python
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> None:
    """Gather it, and say how large each part is."""
    options = _parser().parse_args()
    parts = {
        "data": files(options.data and [options.data], ".zip", ".csv"),
        "weights": files(options.weights, ".safetensors"),
    }
    check(parts)  # before anything is downloaded
    with replacing_folder(options.bundle, {"wheels", "site", *parts}) as folder:
        download(folder / "wheels", options.python)
        for name, found in parts.items():
            for path in found:
                (folder / name).mkdir(exist_ok=True)
                shutil.copyfile(path, folder / name / path.name)
        said = check({"wheels": files([folder / "wheels"], ".whl")} | parts)
    print(f"{options.bundle}, for Python {options.python}: {said}")


def files(places: Sequence[Path] | None, *endings: str) -> list[Path]:
    """Return the files that were named, or lie in the folders that were.

    Raises:
        SkinlesionError: if there is none where some were named.
    """
    found = [p for place in places or () for p in (place.iterdir() if place.is_dir() else [place])]
    found = sorted(path for path in found if path.suffix in endings and path.is_file())
    if places and not found:
        raise SkinlesionError(f"{', '.join(map(str, places))}: there is no file *{endings[0]}.")
    return found


def check(parts: dict[str, list[Path]]) -> str:
    """Return how large the parts are, or raise SkinlesionError if they are too large."""
    sizes = {name: sum(path.stat().st_size for path in found) for name, found in parts.items()}
    listed = ", ".join(f"{name} {size / MIB:.1f}" for name, size in sizes.items() if size)
    said = f"{sum(sizes.values()) / MIB:.1f} MiB ({listed})"
    if sum(sizes.values()) > LIMIT:
        raise SkinlesionError(
            f"{said}: expected at most {LIMIT // MIB}; name fewer weights (WEIGHTS='a.safetensors "
            "b.safetensors'), or carry them or the data beside, and name these to make gpu"
        )
    return said


def download(folder: Path, python: str) -> None:
    """Download wheels in the exact versions of requirements.lock, verified by its digests."""
    lock = LOCK.read_text(encoding="utf-8")
    pinned = {pin[1]: pin[0] for pin in re.finditer(r"^(\S+?)==.*\n(?: .*\n)+", lock, re.MULTILINE)}
    there = [*("--only-binary=:all:", "--implementation=cp", f"--python-version={python}")]
    there += [f"--platform={name}" for name in PLATFORMS]
    wheels = [name for name in PACKAGES if name not in BUILT]
    _pip(["download", *there, f"--dest={folder}"], [pinned[name] for name in wheels])
    _pip(["wheel", "--no-build-isolation", f"--wheel-dir={folder}"], [pinned[n] for n in BUILT])


def _pip(command: Sequence[str], pins: Sequence[str]) -> None:
    with NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("".join(pins))
        file.flush()
        words = ["-m", "pip", *command, "--quiet", "--no-deps", f"--requirement={file.name}"]
        if subprocess.run([sys.executable, *words]).returncode:
            raise SkinlesionError("pip could not fetch the packages, for the reason above")


def unpack(bundle: Path) -> None:
    """Unpack the wheels, zips of what is imported, where this Python and those it starts look.

    Raises:
        SkinlesionError: if it is no bundle, or one for another Python.
    """
    wheels, site = sorted(bundle.glob("wheels/*.whl")), bundle.absolute() / "site"
    if not wheels:
        raise SkinlesionError(f"{bundle} holds no wheels: make gpu-bundle writes such a folder.")
    this, tag = "{}.{}".format(*sys.version_info), "cp{}{}".format(*sys.version_info)
    if not any(f"-{tag}-{tag}-" in wheel.name for wheel in wheels):
        how = f"make gpu-bundle PYVERSION={this}"
        raise SkinlesionError(f"{bundle} is for another Python, this is {this}: {how}")
    if not site.exists():
        with replacing_folder(site, set()) as folder:
            for wheel in wheels:
                shutil.unpack_archive(wheel, folder, "zip")
    there = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), *there])
    sys.path.insert(0, str(site))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bundle", description=__doc__.partition(": ")[2]
    )
    add = parser.add_argument
    add("bundle", type=Path, help="folder to write")
    add("--python", default="3.12", help="whose wheels, of Linux on x86-64 (default: 3.12)")
    add("--data", type=Path, help="folder of HAM10000's zips and table")
    add("--weights", type=Path, nargs="+", help="ImageNet weights, a folder or files")
    return parser


if __name__ == "__main__":
    with report_errors():
        main()
