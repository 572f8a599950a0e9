"""The job's config as it was checked: what each value may be, in one place.

Axes that name a class (`_target_`) are checked by that class, and the network's by its parts.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict

from skinlesion.data.split import Split
from skinlesion.errors import validated

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
    cache: Path
    workers: Whole | None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|gpu|mps|cuda(:\d+)?)$")]
    force: bool
    logger: Choice | None
    channels_last: bool | None
    rotated: bool | None
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


class Job(_Node):
    """A run's config: conf/config.yaml."""

    seed: Whole
    weights: str
    dropout: Share
    pooling: str
    hidden: Positive | None
    missing_metadata: Literal["category", "zero"]
    precision: Literal["32-true", "bf16-mixed"] | None
    sweep: Any
    machine: Machine
    data: Choice
    split: Split
    augment: Choice | None
    backbone: Choice
    preprocess: Choice
    attention: Choice
    metadata: Choice
    loss: Choice
    optimizer: Annotated[Choice, AfterValidator(_adam)]
    scheduler: Choice | None
    trainer: Trainer
    callbacks: Callbacks
    batch_size: Positive
    initialiser: Literal["keras", "torch"]
    batch_norm: Literal["timm", "keras"]


def read_job(config: DictConfig) -> Job:
    """Return a job's config, checked.

    Raises:
        SkinlesionError: one error that names all that is wrong, unknown keys with the nearest.
    """
    return validated(Job, OmegaConf.to_container(config, resolve=True))
