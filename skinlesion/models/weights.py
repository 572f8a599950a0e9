"""Pretrained weights, and what they say of how a backbone is built and fed.

`weights` is `imagenet` (timm's pinned tag), `none`, the path of a file, or of a folder of
`.safetensors` files, which stands for the one whose header names the backbone, so that a sweep over
backbones needs one path.

A `.safetensors` file may carry in its header, as text: `backbone`, `timm_model`, `timm_kwargs`
(JSON), `mean`, `std` (JSON, for pixels in 0…1), `channels`, `strides` (`keras_v1`) and `source`.
A finished run, its best.ckpt or an exported model.safetensors gives its backbone, fed as it was.
Without such a header, and for `.pth` files, the backbone's config says how to build and feed it.
"""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import huggingface_hub
import requests
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from timm.models import clean_state_dict, load_state_dict
from torch import Tensor, nn

from skinlesion.errors import SkinlesionError, listing, validated
from skinlesion.models.spec import BackboneSpec


def resolve_spec(spec: BackboneSpec, weights: str) -> BackboneSpec:
    """Return the spec as the weights want it built and fed.

    Args:
        spec: the backbone's config.
        weights: `imagenet`, `none` or the path of a file.

    Raises:
        SkinlesionError: if there are no such weights or they belong to another backbone.
    """
    if weights == "imagenet" and spec.pretrained is None:
        raise SkinlesionError(
            f"weights=imagenet: timm has no ImageNet weights for {spec.name}. weights=<file> takes "
            "them from a file, weights=none preprocess=paper starts from scratch."
        )
    if weights in ("imagenet", "none"):
        return spec
    header = _header(_existing(weights)) or _trained(weights)
    if (owner := header.get("backbone", spec.name)) != spec.name:
        raise SkinlesionError(
            f"{weights} holds weights of {owner}, but backbone={spec.name} was asked for. "
            f"Say backbone={owner}, or name another file."
        )
    texts = {name: header[name] for name in ("timm_model", "channels", "strides") if name in header}
    try:
        values = {k: json.loads(header[k]) for k in ("timm_kwargs", "mean", "std") if k in header}
        return validated(BackboneSpec, asdict(spec) | texts | values)
    except (ValueError, SkinlesionError) as error:
        raise SkinlesionError(f"{weights}: its header does not say how to build: {error}") from None


def find_weights(weights: str, backbone: str) -> str:
    """Return the file in a folder of weights that belongs to a backbone; other weights as they are.

    Args:
        weights: `imagenet`, `none`, the path of a file, of a run directory, or of a folder of
            `.safetensors` files.
        backbone: the config's name.

    Raises:
        SkinlesionError: if the folder holds no such file, or several.
    """
    if weights in ("imagenet", "none", "") or not Path(weights).is_dir():
        return weights
    if (best := Path(weights) / "checkpoints" / "best.ckpt").is_file():
        if not (Path(weights) / "DONE").exists():
            raise SkinlesionError(f"weights={weights}: this run is not finished; finish it first.")
        return str(best)
    if (Path(weights) / "DONE").exists():
        what = "a head's run, or a copy for tables only"
        raise SkinlesionError(f"weights={weights}: this run has no checkpoint ({what}).")
    owners = {path: _header(path).get("backbone") for path in Path(weights).glob("*.safetensors")}
    found = sorted(path for path, owner in owners.items() if owner == backbone)
    if len(found) == 1:
        return str(found[0])
    if found:
        names = listing([path.name for path in found])
        raise SkinlesionError(f"weights={weights}: several are for {backbone}: {names}. Name one.")
    there = sorted({owner for owner in owners.values() if owner})
    raise SkinlesionError(
        f"weights={weights}: no file in this folder is for {backbone}. Its headers name: "
        f"{listing(there, 20) or 'none'}. weights=imagenet downloads timm's, weights=none "
        "preprocess=paper starts from scratch."
    )


def download(spec: BackboneSpec) -> str:
    """Return the path of timm's ImageNet weights, downloaded at the first use.

    Raises:
        SkinlesionError: if they cannot be had.
    """
    repository = f"timm/{spec.timm_model}.{spec.pretrained}"
    offline = ""
    try:
        requests.head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except requests.RequestException:
        offline = "no network"  # the hub's client would retry for a minute
    try:
        return huggingface_hub.hf_hub_download(
            repository, "model.safetensors", local_files_only=bool(offline)
        )
    except Exception as error:  # the client's exceptions differ between its releases
        why = offline or next(iter(str(error).splitlines()), repr(error))
        raise SkinlesionError(
            f"weights=imagenet: {repository} could not be downloaded ({why}). Without a network: "
            "weights=<file.safetensors or .pth> takes weights from a file, weights=none "
            "preprocess=paper starts from scratch."
        ) from None


def load_state(path: str) -> dict[str, Tensor]:
    """Read a state dict, out of what training programs write around it.

    Those are torch's DataParallel and compile, timm's train.py (its moving average first) and
    Lightning, whose module calls its network `model`.

    Args:
        path: a `.safetensors` file, or any other that torch wrote.

    Raises:
        SkinlesionError: if the file is missing, damaged, of another kind, or holds no state dict.
    """
    file = _existing(path)
    try:
        state = load_state_dict(str(file), weights_only=True)
    except Exception:  # timm's and torch's own messages advise to run the code that a file may hold
        raise SkinlesionError(
            f"{path} cannot be read as weights: it is damaged, of another kind, or holds more than "
            "names and tensors. Expected a .safetensors file, or a .pth file written by "
            "torch.save(model.state_dict(), …)."
        ) from None
    within = {name[6:]: value for name, value in state.items() if name.startswith("model.")}
    state = clean_state_dict(within) or state
    state.pop("n_averaged", None)  # torch's moving average counts
    whole = re.compile(r"(network\.)?backbone\.trunk\.")  # as skinlesion trains and exports it
    if trunk := {whole.sub("", n, count=1): v for n, v in state.items() if whole.match(n)}:
        return trunk
    if not all(isinstance(value, Tensor) and not value.is_meta for value in state.values()):
        raise SkinlesionError(
            f"{path} holds no state dict (names and tensors), but {listing([*state])}."
        )
    return state


def load_into(trunk: nn.Module, full_names: set[str], path: str) -> list[str]:
    """Load a weights file into a cut backbone.

    Args:
        trunk: the cut backbone.
        full_names: names of the uncut backbone's state; those behind the cut are passed over.
        path: the weights file.

    Returns:
        Names of the trunk that the file does not hold, left as initialised.

    Raises:
        SkinlesionError: if names or shapes do not fit, or numbers are not finite.
    """
    found, wanted = load_state(path), trunk.state_dict()
    taken = {name: _with_mask(found[name], wanted[name]) for name in wanted if name in found}
    misfits = {
        "names that the backbone does not have": sorted(set(found) - full_names),
        "shapes that differ": [
            f"{name} is {tuple(value.shape)}, expected {tuple(wanted[name].shape)}"
            for name, value in taken.items()
            if value.shape != wanted[name].shape
        ],
    }
    problems = "; ".join(f"{what}: {listing(which)}" for what, which in misfits.items() if which)
    if problems or not taken:
        raise SkinlesionError(
            f"{path} does not fit the backbone: {problems or 'no name of the backbone is in it'}. "
            "Set backbone.timm_model and backbone.timm_kwargs to what the file was made with."
        )
    if broken := [name for name, value in taken.items() if not value.isfinite().all()]:
        raise SkinlesionError(f"{path} holds numbers that are not finite: {listing(broken)}.")
    trunk.load_state_dict(taken, strict=False)
    counters = "num_batches_tracked"  # absent from older files, and without effect
    return [name for name in wanted if name not in found and not name.endswith(counters)]


def _with_mask(weight: Tensor, wanted: Tensor) -> Tensor:
    """Return a first convolution's weight for a mask too, of which it takes nothing at first."""
    of_mask = weight.ndim == 4 and weight.shape[1] == 3 and wanted.shape[1] == 4
    return F.pad(weight, (0, 0, 0, 0, 0, 1)) if of_mask else weight


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise SkinlesionError(
            f"weights={path}: no such file. Expected imagenet, none, the path of a .safetensors or "
            ".pth file, or of a folder of .safetensors files."
        )
    return file


def _trained(path: str) -> dict[str, str]:
    """Return the like of a header for a trained network's checkpoint; empty for other files."""
    try:
        told = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return _told(told["hyper_parameters"]["network"]) if isinstance(told, dict) else {}
    except Exception:  # no file that torch wrote, or no run's: who loads it says what is wrong
        return {}


def _told(network: dict[str, Any]) -> dict[str, str]:
    """Return a backbone's fields, in a network's description, as a header has them."""
    fields = network["backbone"]
    texts = {"timm_model": fields["timm_model"], "backbone": fields["name"]}
    texts |= {n: fields[n] for n in ("channels", "strides") if fields.get(n)}
    values = {n: fields[n] for n in ("timm_kwargs", "mean", "std") if fields.get(n)}
    return texts | {name: json.dumps(value) for name, value in values.items()}


def _header(path: Path) -> dict[str, str]:
    """Return a safetensors file's own text fields; empty for other kinds."""
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        described = json.loads(header["skinlesion"]) if "skinlesion" in header else None
        return header if described is None else _told(described["network"])
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise SkinlesionError(f"{path} cannot be read as safetensors: {error}") from None
