"""NASNet-A Mobile is wired as keras.applications.NASNetMobile.

Keras builds the mobile network with skip_reduction=False (keras/src/applications/nasnet.py): the
cell after a reduction takes the reduction and the reduction's own input.
"""

import pytest
import timm
import torch

import skinlesion.models.nasnet  # noqa: F401  registers nasnetamobile

CELLS = [
    *("cell_stem_0", "cell_stem_1"),
    *("cell_0", "cell_1", "cell_2", "cell_3", "reduction_cell_0"),
    *("cell_4", "cell_5", "cell_6", "cell_7", "reduction_cell_1"),
    *("cell_8", "cell_9", "cell_10", "cell_11"),
]


@pytest.fixture(scope="module")
def mobile():
    with torch.device("meta"):
        return timm.create_model("nasnetamobile").eval()


@pytest.fixture(scope="module")
def calls(mobile):
    """Each cell's inputs and output for one image of 224 x 224."""
    seen = {}
    hooks = [
        mobile.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs, output)})
        )
        for name in CELLS
    ]
    mobile(torch.zeros(1, 3, 224, 224, device="meta"))
    for hook in hooks:
        hook.remove()
    return seen


def test_has_as_many_parameters_as_keras(mobile):
    state = mobile.state_dict()
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert sum(state[name].numel() for name in state.keys() - counters) == 5_326_716


@pytest.mark.parametrize("index", range(2, len(CELLS)))
def test_every_cell_takes_the_outputs_of_the_two_before_it(calls, index):
    last, before = calls[CELLS[index]][0]
    assert last is calls[CELLS[index - 1]][1]
    assert before is calls[CELLS[index - 2]][1]


# 44, 88 and 176 filters a branch, 11 and 22 in the stem; a normal cell lays six branches side by
# side, a reduction four; 224 → 111 → 56 → 28 → 14 → 7.
@pytest.mark.parametrize(
    ("cell", "shape"),
    [
        ("cell_stem_0", (44, 56, 56)),
        ("cell_stem_1", (88, 28, 28)),
        ("cell_3", (264, 28, 28)),
        ("reduction_cell_0", (352, 14, 14)),
        ("cell_7", (528, 14, 14)),
        ("reduction_cell_1", (704, 7, 7)),
        ("cell_11", (1056, 7, 7)),
    ],
)
def test_cells_have_keras_shapes(calls, cell, shape):
    assert calls[cell][1].shape == (1, *shape)


def test_classifier_is_timms(mobile):
    assert mobile(torch.zeros(2, 3, 224, 224, device="meta")).shape == (2, 1000)
    features = mobile.forward_features(torch.zeros(2, 3, 224, 224, device="meta"))
    assert mobile.forward_head(features, pre_logits=True).shape == (2, 1056)


def test_may_have_no_classifier():
    with torch.device("meta"):
        headless = timm.create_model("nasnetamobile", num_classes=0)
        assert headless(torch.zeros(2, 3, 64, 64)).shape == (2, 1056)


def test_says_that_timm_has_no_weights():
    with pytest.raises(RuntimeError, match="No pretrained weights exist for nasnetamobile"):
        timm.create_model("nasnetamobile", pretrained=True)
