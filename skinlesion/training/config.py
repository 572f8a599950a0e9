"""The job's config, checked, and what it means on this machine.

What each value may be stands here, in one place. Axes that name a class (`_target_`) are checked by
that class, and the network's by its parts. How a run is computed is a choice of conf/machine/: null
is what was measured to be fastest on the device (docs/performance.md).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from skinlesion.data.split import Split
from skinlesion.errors import validated

# Backbones whose step bfloat16 makes faster on a CPU that multiplies it in hardware. The others
# have depthwise convolutions, whose backward pass it makes up to five times slower.
BF16_ON_CPU = ("densenet201", "inception_resnet_v2", "resnet50", "resnet152", "vgg16")
EVALUATION_BATCH_ON_CPU = 32
PIXELS = 28  # height and width of an image whose pixels are a head's features

Whole = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Choice = dict[str, Any]  # of an axis


def _batches(value: Any) -> int | float:
    """Lightning's limits: a number of batches, or a share of them."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError("expected a number of batches from 1, or a share above 0 and up to 1.0")
    return value


def _adam(values: Choice) -> Choice:
    """Adam divides by epsilon where a parameter never had a gradient."""
    for name, most in (("lr", 0.0), ("eps", None)):
        value = values.get(name, 1)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not (value > 0 or value == most) or value == float("inf"):
            least = "from 0" if most == 0.0 else "above 0"
            raise ValueError(f"{name}={value}: expected a number {least}")
    return values


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Machine(_Node):
    """What cannot change a result: conf/machine/."""

    runs: Path
    data: Path
    test: Path
    cache: Path
    workers: Whole | None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu|mps|cuda(:\d+)?)$")]
    force: bool
    logger: Choice | None
    channels_last: bool | None
    fused: bool | None
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None
    tf32: bool | None
    retain_memory: bool | None
    evaluation_batch: Positive | None


class Trainer(_Node):
    """The options of Lightning's Trainer that a run obeys: conf/trainer/."""

    target: str = Field(alias="_target_")
    max_epochs: Positive
    limit_train_batches: Annotated[Any, AfterValidator(_batches)]
    limit_val_batches: Annotated[Any, AfterValidator(_batches)]  # validation selects the checkpoint
    limit_predict_batches: Annotated[Any, AfterValidator(_batches)]


class Callbacks(_Node):
    """conf/callbacks/."""

    early_stopping: Choice
    best: Choice


class Head(_Node):
    """What learns in the place of the network's last layer: conf/head/."""

    features: Literal["pooled", "pixels"]
    estimator: Choice


class Job(_Node):
    """A run's config: conf/config.yaml."""

    seed: Whole
    weights: str
    dropout: Share
    pooling: str
    hidden: Positive | None
    hidden_norm: Literal["batch"] | None
    freeze: Literal[True] | None
    missing_metadata: Literal["category", "zero"]
    precision: Literal["32-true", "bf16-mixed"] | None
    sweep: Any
    machine: Machine
    data: Choice
    split: Split
    augment: Choice | None
    sampler: Literal["balanced"] | None
    backbone: Choice
    preprocess: Choice
    attention: Choice
    metadata: Choice
    head: Head | None
    loss: Choice
    teacher: Choice | None
    tta: Literal["flips", "crops"] | None
    optimizer: Annotated[Choice, AfterValidator(_adam)]
    scheduler: Choice | None
    trainer: Trainer
    callbacks: Callbacks
    batch_size: Positive
    initialiser: Literal["keras", "torch"]
    batch_norm: Literal["timm", "keras"]

    @property
    def pixels(self) -> bool:
        """Whether a head sees an image's pixels, and no network does."""
        return self.head is not None and self.head.features == "pixels"

    @property
    def image_size(self) -> int:
        """Height and width of the images, in pixels."""
        size: int = PIXELS if self.pixels else self.backbone["input_size"]
        return size


def read_job(config: DictConfig) -> Job:
    """Return a job's config, checked.

    Raises:
        SkinlesionError: one error that names all that is wrong, unknown keys with the nearest.
    """
    return validated(Job, OmegaConf.to_container(config, resolve=True))


@dataclass(frozen=True)
class Compute:
    """How a run is computed: the switches of conf/machine/, where null has become the default.

    Of those that may still be None, `compile` then means eager, `evaluation_batch` as many images
    as fit, and `resident` whether all images fit into half of the device's free memory.
    """

    device: str
    precision: str
    channels_last: bool
    fused: bool
    compile: str | None
    tf32: bool
    retain_memory: bool
    evaluation_batch: int | None
    resident: bool | None

    def apply(self) -> None:
        """Set what holds for the whole process."""
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        if self.retain_memory:
            from skinlesion.training.memory import retain_memory

            retain_memory()

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass outside of Lightning."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16-mixed")

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and feature maps lie in memory."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


def resolve(job: Job) -> Compute:
    """Return what a job's config means on this machine; null becomes the device's default."""
    device = _device(job.machine.device)
    on_gpu = device == "cuda"
    defaults: dict[str, Any] = {
        "precision": _precision(device, job.backbone["name"]),
        "channels_last": True,
        "fused": device in ("cuda", "cpu"),
        "compile": None,
        "tf32": True,
        "retain_memory": device == "cpu",
        "evaluation_batch": None if on_gpu else EVALUATION_BATCH_ON_CPU,
        "resident": None if on_gpu else False,
    }
    asked = {**dict(job.machine), "precision": job.precision, "resident": job.data.get("resident")}
    asked = {name: asked[name] for name in defaults if asked[name] is not None}
    return Compute(device=device, **defaults | asked)


def _device(asked: str) -> str:
    if (asked in ("auto", "gpu") or asked.startswith("cuda")) and torch.cuda.is_available():
        return "cuda"
    if asked in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def _precision(device: str, backbone: str) -> str:
    if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    if device == "cpu" and backbone in BF16_ON_CPU:
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.10
        if known.get("amx_bf16"):
            return "bf16-mixed"
    return "32-true"
