"""One pass of a network over images: in evaluation mode, without augmentation, in their order."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from skinlesion.data.samples import LesionDataset, Samples
from skinlesion.training.config import Compute

BATCH_ON_GPU = 256


@torch.inference_mode()
def one_pass(
    look: Callable[[Tensor, Tensor], Tensor],
    samples: Samples,
    index: np.ndarray,
    compute: Compute,
    device: torch.device,
) -> np.ndarray:
    """Return what is seen in each of these samples, (n, F) float32.

    Args:
        look: image (B, 3, S, S) uint8 and encoded metadata (B, M), on the device → (B, F).
        samples: what `index` (n,) counts.
        compute: its precision, and how many images a step.
        device: where the network is.
    """
    dataset, size = LesionDataset(samples), compute.evaluation_batch or BATCH_ON_GPU
    found = []
    with compute.autocast(), tqdm(total=len(index), desc="features", disable=None) as bar:
        for start in range(0, len(index), size):
            draws = [(0, int(sample)) for sample in index[start : start + size]]
            batch = dataset.__getitems__(draws)
            seen = look(batch["image"].to(device), batch["metadata"].to(device))
            found.append(seen.float().cpu().numpy())  # (B, F)
            bar.update(len(draws))
    return np.concatenate(found)
