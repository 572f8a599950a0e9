"""NASNet-A Mobile is wired as keras.applications.NASNetMobile.

Keras builds the mobile network with skip_reduction=False (keras/src/applications/nasnet.py): the
cell after a reduction takes the reduction and the reduction's own input.
"""

import pytest
import torch

from skinlesion.models.nasnet import NASNetAMobile

CELLS = [
    *("cell_stem_0", "cell_stem_1"),
    *("cell_0", "cell_1", "cell_2", "cell_3", "reduction_cell_0"),
    *("cell_4", "cell_5", "cell_6", "cell_7", "reduction_cell_1"),
    *("cell_8", "cell_9", "cell_10", "cell_11"),
]


@pytest.fixture(scope="module")
def mobile():
    with torch.device("meta"):
        return NASNetAMobile().eval()


@pytest.fixture(scope="module")
def calls(mobile):
    """Each cell's inputs and output for one image of 224 x 224, and the logits."""
    seen = {}
    for name in CELLS:
        mobile.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: seen.update({name: (inputs, output)})
        )
    return seen | {"logits": mobile(torch.zeros(1, 3, 224, 224, device="meta"))}


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
    assert calls["logits"].shape == (1, 1000)
