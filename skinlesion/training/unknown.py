"""How unknown each tested lesion looks to a trained network (`data.unknown`), by four scores.

A larger score means more unknown. `isolation_forest` is DeepIF (Li, Lu, Desrosiers and Liu 2020,
arXiv:2003.09365), which the paper cites as [13]: a forest on the network's features. Those that it
is compared with: `mahalanobis`, the distance to the nearest class (Lee et al. 2018,
arXiv:1807.03888, of one layer and without their perturbation of the image); `energy`,
-log Σ exp(logit) (Liu et al. 2020, arXiv:2010.03759); `max_softmax`, 1 - the largest probability
(Hendrycks and Gimpel 2017, arXiv:1610.02136).
"""

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.ensemble import IsolationForest
from torch import Tensor

from skinlesion.data.samples import Samples
from skinlesion.data.split import UNKNOWN
from skinlesion.files import replacing
from skinlesion.models.classifier import Classifier
from skinlesion.runs.directory import RunDirectory
from skinlesion.training.config import Compute
from skinlesion.training.passes import one_pass


def score_unknown(
    network: Classifier,
    samples: Samples,
    seed: int,
    compute: Compute,
    directory: RunDirectory,
) -> None:
    """Write `unknown.csv`: each image of the test part and of the unknown classes, and its scores.

    What scores learn, they learn from the training images.
    """
    part = samples.frame["split"].to_numpy()
    train = np.flatnonzero(part == "train")
    tested = np.flatnonzero(np.isin(part, ["test", UNKNOWN]))
    maps: list[Tensor] = []
    hook = network.backbone.register_forward_hook(lambda module, inputs, t: maps.append(t))

    def look(image: Tensor, metadata: Tensor) -> Tensor:
        logits, t = network.eval()(image, metadata), maps.pop()  # (B, classes), (B, C, h, w)
        return torch.cat([logits, t.flatten(2).mean(2) if t.ndim > 2 else t], dim=1)

    device = next(network.parameters()).device
    seen = one_pass(look, samples, np.concatenate([train, tested]), compute, device)
    hook.remove()
    logits, features = np.split(seen.astype(float), [len(samples.classes)], axis=1)
    known, asked = features[: len(train)], features[len(train) :]
    logits = logits[len(train) :]
    forest = IsolationForest(random_state=seed).fit(known)
    frame = samples.frame.loc[tested, ["image_id", "lesion_id", "dx"]]
    frame = frame.rename(columns={"dx": "label"})
    frame["unknown"] = (part[tested] == UNKNOWN).astype(int)
    frame["isolation_forest"] = -forest.score_samples(asked)
    frame["mahalanobis"] = mahalanobis(known, samples.labels[train], asked)
    frame["energy"] = -logsumexp(logits, axis=1)
    frame["max_softmax"] = 1 - softmax(logits, axis=1).max(axis=1)
    with replacing(directory.path / "unknown.csv") as path:
        frame.to_csv(path, index=False, float_format="%.9g")


def mahalanobis(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distance of features (m, F) to the nearest class mean, (m,).

    The covariance is that of all classes about their means, shrunk (Ledoit and Wolf 2004), as some
    features hardly vary.

    Args:
        known: features of the training images, (n, F).
        labels: their classes, (n,).
        asked: the features that are asked for, (m, F).
    """
    classes, of = np.unique(labels, return_inverse=True)
    means = np.stack([known[of == c].mean(axis=0) for c in range(len(classes))])
    precision = LedoitWolf(assume_centered=True).fit(known - means[of]).precision_
    apart = asked[:, None] - means  # (m, C, F)
    distances: np.ndarray = np.einsum("mcf,fg,mcg->mc", apart, precision, apart, optimize=True)
    return distances.min(axis=1)
