"""NASNet-A Mobile (4 @ 1056; Zoph et al. 2018, arXiv:1707.07012), which timm does not have.

The cells are timm's; the layout follows keras.applications.NASNetMobile (stem of 32 channels, four
normal cells a stage).
"""

from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers import ConvNormAct, create_classifier
from timm.models.nasnet import (
    CellStem0,
    CellStem1,
    FirstCell,
    NormalCell,
    ReductionCell0,
    ReductionCell1,
)
from torch import Tensor, nn

STEM = 32  # channels
FILTERS = 44  # channels of a branch in the first stage
CELLS = 4  # normal cells a stage


class ZeroPadded(nn.Module):
    """A pooling over 3 x 3 with stride 2 that sees zeros beyond the border.

    Keras pads a reduction's input with zeros before three of its poolings (nasnet.py, `h3`), so
    that they enter maxima and means; timm, as TensorFlow's "same", leaves out what is beyond.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, ceil(H / 2), ceil(W / 2)) of (B, C, H, W)."""
        height, width = x.shape[-2:]
        return self.pool(F.pad(x, (width % 2, 1, height % 2, 1)))


def _pool_as_keras(reduction: nn.Module) -> nn.Module:
    reduction.comb_iter_1_left = ZeroPadded(nn.MaxPool2d(3, 2))
    reduction.comb_iter_2_left = ZeroPadded(nn.AvgPool2d(3, 2))
    reduction.comb_iter_4_right = ZeroPadded(nn.MaxPool2d(3, 2))
    return reduction


class NASNetAMobile(nn.Module):
    """NASNet-A Mobile: a stem, twelve normal cells, two reductions and the classifier.

    Args:
        in_chans: C, of an image.

    Shape:
        image (B, C, H, W) → logits (B, 1000); at 224 the last map is (B, 1056, 7, 7).
    """

    def __init__(self, in_chans: int = 3) -> None:
        super().__init__()
        same = {"pad_type": "same"}
        norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1)
        options: Any = {"stride": 2, "padding": 0, "norm_layer": norm, "apply_act": False}
        self.conv0 = ConvNormAct(in_chans, STEM, 3, **options)
        self.cell_stem_0 = _pool_as_keras(CellStem0(STEM, num_channels=FILTERS // 4, **same))
        self.cell_stem_1 = _pool_as_keras(CellStem1(STEM, num_channels=FILTERS // 2, **same))
        before, last = FILTERS, 2 * FILTERS  # channels of the two tensors that feed the next cell
        for stage, reduction in enumerate((None, ReductionCell0, ReductionCell1)):
            width = FILTERS * 2**stage
            if reduction:
                cell = _pool_as_keras(reduction(before, width, last, width, **same))
                self.add_module(f"reduction_cell_{stage - 1}", cell)
                last = 4 * width
            for i in range(CELLS):
                kind, left = (NormalCell, width) if i else (FirstCell, width // 2)
                cell = kind(before, left, last, width, **same)
                self.add_module(f"cell_{stage * CELLS + i}", cell)
                before, last = last, 6 * width
        self.act = nn.ReLU()
        self.global_pool, self.head_drop, self.last_linear = create_classifier(
            last, 1000, pool_type="avg", drop_rate=0.0
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, 1000)."""
        stem = self.conv0(x)
        before = self.cell_stem_0(stem)
        last = self.cell_stem_1(stem, before)
        for stage in range(3):
            if stage:
                # Unlike in NASNet-A Large, what fed the reduction also feeds the next cell.
                reduction = self.get_submodule(f"reduction_cell_{stage - 1}")
                before, last = last, reduction(last, before)
            for i in range(CELLS):
                cell = self.get_submodule(f"cell_{stage * CELLS + i}")
                before, last = last, cell(last, before)
        return self.last_linear(self.head_drop(self.global_pool(self.act(last))))
