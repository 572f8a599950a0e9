"""Draws of lesions, image by image: the plain way to hold the bootstrap's products against."""

import numpy as np

from skinlesion.evaluation.bootstrap import multiplicities


def lesion_weights(lesions, draws: int, seed: int) -> np.ndarray:
    """How often each image, of these lesions, is in each draw, (draws, n)."""
    names, lesion = np.unique(np.asarray(lesions), return_inverse=True)
    return multiplicities(len(names), draws, seed).astype(np.int64).T[:, lesion]
