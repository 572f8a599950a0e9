"""How what is not pretrained starts: as Keras starts it, or as PyTorch does."""

from torch import nn

from skinlesion.models.classifier import Classifier

INITIALISERS = ("keras", "torch")


def initialise(network: Classifier, initialiser: str) -> None:
    """Start the dense layers anew.

    Soft attention starts He uniform either way, as the released code says; batch norms start alike
    in both frameworks; a backbone without pretrained weights stays as timm starts it.

    Args:
        network: the network, changed in place.
        initialiser: `keras` (Glorot uniform, bias 0) or `torch` (both within 1/√inputs).

    Raises:
        ValueError: if there is no such initialiser.
    """
    if initialiser not in INITIALISERS:
        raise ValueError(f"initialiser={initialiser}: expected one of {', '.join(INITIALISERS)}")
    branch = [] if network.metadata is None else network.metadata.modules()
    for layer in (network.hidden, network.dense, *branch):
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
            if initialiser == "keras":
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
