"""An estimator of scikit-learn in the place of the network's last layer (conf/head/).

It learns from what that layer would see: the pooled features of a network that is trained no
further, in evaluation mode and without augmentation; or from the pixels of a small image. The
encoded metadata may be joined. Features are computed once, and kept in the folder of the cache.
"""

import hashlib
import json
import logging
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from hydra.utils import instantiate

from skinlesion.data.samples import Samples
from skinlesion.errors import SkinlesionError
from skinlesion.files import replacing
from skinlesion.models.classifier import Classifier
from skinlesion.runs.directory import RunDirectory, write_history
from skinlesion.runs.predictions import PARTS, write_predictions
from skinlesion.runs.provenance import provenance
from skinlesion.training.build import Parts
from skinlesion.training.config import Compute, Job
from skinlesion.training.passes import one_pass

VERSION = 1  # of the way from image to features

log = logging.getLogger(__name__)


def check(job: Job) -> None:
    """Refuse choices that would do nothing, features that nobody trained, and what cannot answer.

    Raises:
        SkinlesionError: one line that names what was expected.
    """
    assert job.head is not None
    refused = {
        "augment=none": job.augment,
        "teacher=none": job.teacher,
        "freeze=null": job.freeze,
        "sampler=null": job.sampler,
        "tta=none": job.tta,
        "hidden=null": job.hidden,
        "data.unknown=null": job.data.get("unknown"),
        "attention=none": job.attention["name"] != "none",
        "metadata=none or metadata=encoded": job.metadata["name"] not in ("none", "encoded"),
        "weights=imagenet, a file or a finished run": job.weights == "none" and not job.pixels,
    }
    if expected := [choice for choice, asked in refused.items() if asked]:
        raise SkinlesionError(
            "head: only its estimator learns, so that an untrained layer would be noise and what "
            f"changes training would do nothing. Expected {', '.join(expected)}."
        )
    estimator = instantiate(job.head.estimator)
    if not hasattr(estimator, "predict_proba"):
        raise SkinlesionError(
            f"head.estimator: {type(estimator).__name__} gives no probabilities (predict_proba): "
            "expected one that does, such as sklearn.calibration.CalibratedClassifierCV around it."
        )


def fit(
    job: Job,
    compute: Compute,
    parts: Parts,
    samples: Samples,
    directory: RunDirectory,
    devices: Any,
) -> None:
    """Fit the estimator on the training part, and predict the held-out ones.

    Writes predictions, provenance and a history without epochs. The estimator is not kept.

    Raises:
        SkinlesionError: if scikit-learn refuses its parameters or the data.
    """
    assert job.head is not None
    network, name = parts.module.network, compute.device
    device = torch.device(f"{name}:{devices[0]}" if isinstance(devices, list) else name)
    if job.pixels:
        x = samples.images[samples.rows].reshape(len(samples.rows), -1) / np.float32(255)  # (N, F)
    else:
        x = image_features(job, compute, network, samples, device)
    if job.metadata["name"] == "encoded":
        x = np.concatenate([x, samples.metadata], axis=1)  # (N, F + M)
    part, estimator = samples.frame["split"].to_numpy(), instantiate(job.head.estimator)
    trained = part == "train"
    held = np.concatenate([np.flatnonzero(part == name) for name in PARTS[1:]])
    shown = f"{x.shape[1]:,} features of {trained.sum():,} images"
    log.info("fitting %s on %s: %s", type(estimator).__name__, shown, directory.path)
    started = time.perf_counter()
    try:
        estimator.fit(x[trained], samples.labels[trained])
        probabilities = np.zeros((len(held), len(samples.classes)))
        probabilities[:, estimator.classes_] = estimator.predict_proba(x[held])
    except ValueError as error:
        raise SkinlesionError(f"head.estimator: {' '.join(str(error).split())}") from None
    made = provenance()
    made |= {
        "compute": asdict(compute),
        "parameters": 0 if job.pixels else sum(p.numel() for p in network.backbone.parameters()),
        "commits": [made["commit"]],
        "fit_seconds": round(time.perf_counter() - started, 3),
    }
    directory.write_json("provenance.json", made)
    write_history([], directory.history)
    write_predictions(samples.answered(held, probabilities), directory.predictions)


def image_features(
    job: Job, compute: Compute, network: Classifier, samples: Samples, device: torch.device
) -> np.ndarray:
    """Return the pooled features of each sample's image, (N, F) float32.

    They are computed at the first use, and then read from a file in the folder of the cache, which
    is named by all that they follow from, the network's weights and the images among it.
    """
    digest = hashlib.sha256()
    for value in network.backbone.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    spec, compute_as = asdict(network.backbone.spec), (compute.precision, device.type)
    ids = samples.frame["image_id"].tolist()
    made_of = [VERSION, spec, job.pooling, samples.digest, job.data.get("region"), compute_as, ids]
    digest.update(json.dumps(made_of).encode())
    path = job.machine.cache / f"features-{digest.hexdigest()[:16]}.npy"
    with FileLock(f"{path}.lock"):  # a second process waits and then finds them
        if not path.exists():
            network.to(device).eval()
            everything = np.arange(len(samples.rows))
            found = one_pass(
                lambda image, metadata: network.image_features(image),
                *(samples, everything, compute, device),
            )
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, found)
    features: np.ndarray = np.load(path)
    return features
