"""NASNet-A Mobile (4 @ 1056; Zoph et al. 2018, arXiv:1707.07012), which timm does not have.

The cells are timm's; the layout follows keras.applications.NASNetMobile (stem of 32 channels, four
normal cells a stage). Registered with timm, so that it is built, cut and loaded like any other.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch.nn.functional as F
from timm.layers import ConvNormAct, create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.nasnet import (
    CellStem0,
    CellStem1,
    FirstCell,
    NormalCell,
    ReductionCell0,
    ReductionCell1,
)
from torch import Tensor, nn

STAGES = 3
CELLS = 4  # normal cells a stage


class ZeroPadded(nn.Module):
    """A pooling over 3 x 3 with stride 2 that sees zeros beyond the border.

    Keras pads a reduction's input with zeros before three of its poolings (nasnet.py, `h3`), so
    that they enter maxima and means; timm, as TensorFlow's "same", leaves out what is beyond.
    """

    def __init__(self, pool: nn.Module) -> None:
        """Wrap a pooling without padding of its own."""
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
    """NASNet-A Mobile.

    Args:
        num_classes: outputs of the classifier; 0 for none.
        in_chans: image channels.
        num_features: channels of the last feature map (N in "4 @ N").
        stem_size: channels of the first convolution.
        global_pool: timm's name of the pooling before the classifier.

    Shape:
        image (B, in_chans, H, W) → logits (B, num_classes); at 224 the last map is 7 x 7.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        num_features: int = 1056,
        stem_size: int = 32,
        global_pool: str = "avg",
    ) -> None:
        """Create the stem, twelve normal cells, two reductions and the classifier."""
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features
        f = num_features // 24  # channels of a branch in the first stage
        same = {"pad_type": "same"}

        self.conv0 = ConvNormAct(
            in_chans,
            stem_size,
            kernel_size=3,
            stride=2,
            padding=0,
            norm_layer=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.1),
            apply_act=False,
        )
        self.cell_stem_0 = _pool_as_keras(CellStem0(stem_size, num_channels=f // 4, **same))
        self.cell_stem_1 = _pool_as_keras(CellStem1(stem_size, num_channels=f // 2, **same))

        before, last = f, 2 * f  # channels of the two tensors that feed the next cell
        reductions = (ReductionCell0, ReductionCell1)
        for stage in range(STAGES):
            width = f * 2**stage
            if stage:
                reduction = reductions[stage - 1](before, width, last, width, **same)
                self.add_module(f"reduction_cell_{stage - 1}", _pool_as_keras(reduction))
                last = 4 * width
            for i in range(CELLS):
                cell = (
                    NormalCell(before, width, last, width, **same)
                    if i
                    else FirstCell(before, width // 2, last, width, **same)
                )
                self.add_module(f"cell_{stage * CELLS + i}", cell)
                before, last = last, 6 * width

        self.act = nn.ReLU()
        self.global_pool, self.head_drop, self.last_linear = create_classifier(
            num_features, num_classes, pool_type=global_pool, drop_rate=0.0
        )

    def _stage(self, stage: int) -> Iterator[nn.Module]:
        for i in range(CELLS):
            yield self.get_submodule(f"cell_{stage * CELLS + i}")

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map (B, num_features, h, w)."""
        stem = self.conv0(x)
        before = self.cell_stem_0(stem)
        last = self.cell_stem_1(stem, before)
        for stage in range(STAGES):
            if stage:
                # Unlike in NASNet-A Large, what fed the reduction also feeds the next cell.
                reduction = self.get_submodule(f"reduction_cell_{stage - 1}")
                before, last = last, reduction(last, before)
            for cell in self._stage(stage):
                before, last = last, cell(last, before)
        return self.act(last)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, num_classes), or the pooled features (B, num_features)."""
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.last_linear(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {
        # No weights exist for timm: `weights=<file>` brings them.
        "nasnetamobile.untrained": {
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 1000,
            "first_conv": "conv0.conv",
            "classifier": "last_linear",
        },
    }
)


@register_model
def nasnetamobile(pretrained: bool = False, **kwargs: Any) -> NASNetAMobile:
    """NASNet-A Mobile (4 @ 1056)."""
    return build_model_with_cfg(NASNetAMobile, "nasnetamobile", pretrained, **kwargs)
