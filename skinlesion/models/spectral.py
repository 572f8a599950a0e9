"""Spectral layers (Alberti et al. 2019, arXiv:1911.05045): a 2-D transform of each feature map.

    DCT-II    Y = A X B^T                   A[k, n] = √(3/N) cos(π (n + 1/2) k / N)
    DFT       Y = (A - iA') X (B - iB')^T   A[k, n] = √(3/N) cos(2π k n / N), A' its sine

The matrices are weights that may be trained. √(3/N) = √(6/(N + N)) is Xavier's bound: a random
start, the control, draws from the same range.
"""

import math

import torch
from torch import Tensor, nn

TRANSFORMS = ("dct", "dft")
STARTS = ("spectral", "random")


class SpectralLayer(nn.Module):
    """The feature maps' spectrum, in the place of soft attention.

    Args:
        shape: (C, h, w) of the feature map.
        transform: `dct`, or `dft`, whose real and imaginary parts, 2C maps, a 1x1 convolution
            brings back to C.
        initial: how the matrices start: `spectral` or `random` (Xavier uniform).
        trained: whether they are trained; the convolution always is.

    Shape:
        features (B, C, h, w) → (B, C, h, w).

    Raises:
        ValueError: if an argument is none of these.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        transform: str = "dct",
        initial: str = "spectral",
        trained: bool = True,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("transform", transform, TRANSFORMS),
            ("initial", initial, STARTS),
            ("trained", trained, (True, False)),
        ):
            if value not in known:
                expected = ", ".join(map(str, known))
                raise ValueError(f"attention.{name}={value}: expected one of {expected}")
        channels, height, width = shape
        # (P, N, N) of rows and columns: P is 1, or cosine and sine.
        self.rows = nn.Parameter(_matrices(height, transform, initial), requires_grad=trained)
        self.columns = nn.Parameter(_matrices(width, transform, initial), requires_grad=trained)
        self.back = None if transform == "dct" else nn.Conv2d(2 * channels, channels, 1)

    def spectrum(self, features: Tensor) -> Tensor:
        """Return the transform (B, C, h, w), or its real and imaginary parts (B, 2C, h, w)."""
        y = torch.einsum("pkh,bchw,qlw->pqbckl", self.rows, features, self.columns)
        if self.back is None:
            return y[0, 0]
        return torch.cat([y[0, 0] - y[1, 1], -(y[0, 1] + y[1, 0])], dim=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the spectrum in as many channels as the features have (B, C, h, w)."""
        spectrum = self.spectrum(features)
        return spectrum if self.back is None else self.back(spectrum)


def _matrices(size: int, transform: str, initial: str) -> Tensor:
    """Return (P, N, N), in float32."""
    n = torch.arange(size, dtype=torch.double)
    if transform == "dct":
        matrices = torch.cos(math.pi * torch.outer(n, n + 0.5) / size)[None]
    else:
        angle = 2 * math.pi * torch.outer(n, n) / size
        matrices = torch.stack([angle.cos(), angle.sin()])
    bound = math.sqrt(3 / size)
    if initial == "random":
        return torch.empty(matrices.shape).uniform_(-bound, bound)
    return (bound * matrices).float()
