"""What is measured: the configs of the jobs, their samples, and their training step alone."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor

from skinlesion.data.batch import Batch
from skinlesion.data.module import LesionDataset
from skinlesion.data.samples import Samples
from skinlesion.sweeps.jobs import CONF
from skinlesion.training.build import build_module, build_network, open_archive
from skinlesion.training.compute import resolve

DEFAULTS = ("weights=none", "preprocess=paper")  # speed does not depend on either
BATCH_ON_GPU, BATCH_ON_CPU = 128, 32
# At 32 images, InceptionResNetV2 would want 15 GB and NASNetLarge 30 GB of a CPU's memory.
SMALLER_ON_CPU = {"inception_resnet_v2": 16, "nasnet_large": 8}


@dataclass(frozen=True)
class Setting:
    """Under which settings is measured.

    Attributes:
        overrides: of the config, as typed.
        batch: images a step; None: what the device and the backbone bear.
    """

    overrides: tuple[str, ...] = ()
    batch: int | None = None
    _opened: dict[tuple[object, ...], Samples] = field(default_factory=dict, repr=False)

    def job(self, backbone: str | None = None, *overrides: str) -> DictConfig:
        """Return the config of a job; of two values for a key the later wins.

        Args:
            backbone: None for the config's own.
            overrides: of what was typed.
        """
        size = self.batch_size
        if self.batch is None and self.device.type != "cuda":
            size = SMALLER_ON_CPU.get(backbone or self.config.backbone.name, size)
        chosen = [] if backbone is None else [f"backbone={backbone}"]
        return _compose(f"batch_size={size}", *DEFAULTS, *self.overrides, *chosen, *overrides)

    @cached_property
    def config(self) -> DictConfig:
        """What was typed, in whose batch nothing is measured: see `job`."""
        return _compose(*DEFAULTS, *self.overrides)

    @cached_property
    def device(self) -> torch.device:
        """Where is computed."""
        return torch.device(resolve(self.config).device)

    @property
    def batch_size(self) -> int:
        """Images a step, for a backbone that is not too large for them."""
        return self.batch or (BATCH_ON_GPU if self.device.type == "cuda" else BATCH_ON_CPU)

    @property
    def seed(self) -> int:
        """What decides every random number."""
        return self.config.seed

    def samples(self, config: DictConfig) -> Samples:
        """Return a job's samples; those of one input size are opened once.

        Raises:
            SkinlesionError: if something is wrong with the data.
        """
        size, data = config.backbone.input_size, config.data
        key = (size, data.root, data.limit, config.split.name)
        if key not in self._opened:
            archive = open_archive(config)
            self._opened[key] = archive.load(Path(data.cache), size, config.missing_metadata)
        return self._opened[key]

    def steps(self, config: DictConfig) -> "Step":
        """Return a job's training step outside of Lightning."""
        return Step(config, self.samples(config))


class Step:
    """A training step on one batch that lies on the device already: what a job can reach at best.

    Args:
        config: the job's.
        samples: where the batch is from.

    Attributes:
        compute: how it is computed.
        batch: the batch, on the device.
        module: the LightningModule, on the device, in training mode.
        optimizer: its optimizer.
    """

    def __init__(self, config: DictConfig, samples: Samples) -> None:
        """Build what training would build; the same seed, the same weights."""
        self.compute = resolve(config)
        device = torch.device(self.compute.device)
        torch.manual_seed(config.seed)
        network = build_network(config, self.compute)
        self.module = build_module(config, network, samples, self.compute).to(device).train()
        if self.compute.compile is not None:
            network.compile(mode=self.compute.compile)
        self.optimizer = self.module.make_optimizer(self.module.parameters())
        trained = np.flatnonzero(samples.frame["split"] == "train")
        chosen = np.resize(trained, config.batch_size)  # again from the start if there are fewer
        fetched = LesionDataset(samples).__getitems__([(0, int(sample)) for sample in chosen])
        self.batch: Batch = {name: value.to(device) for name, value in fetched.items()}

    def __call__(self) -> Tensor:
        """Take the step; return its loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.compute.autocast():
            loss = self.module.loss(self.module.logits(self.batch), self.batch["label"])
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.inference_mode()
    def probabilities(self) -> Tensor:
        """Return what the network says of the batch, (B, C) float32 on the host."""
        self.module.eval()
        with self.compute.autocast():
            logits = self.module.logits(self.batch)
        self.module.train()
        return logits.float().softmax(dim=1).cpu()


def _compose(*words: str) -> DictConfig:
    """Return the config; of two words for a key the last counts: Hydra takes an axis only once."""
    latest = {word.partition("=")[0].lstrip("+"): word for word in words}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [*latest.values()])
