"""Every backbone's file, and what a backbone does with an image.

That those which the authors trained are Keras' models up to their cut is shown in tests/fidelity.
"""

from functools import cache

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg

from skinlesion.cli import CONF
from skinlesion.errors import SkinlesionError
from skinlesion.models.nasnet import NASNetAMobile

FOLDER = CONF / "backbone"
FILES = sorted(path.relative_to(FOLDER).as_posix()[:-5] for path in FOLDER.rglob("*.yaml"))
every_backbone = pytest.mark.parametrize("name", FILES)

# A line for each file: (C, h, w) at the cut, parameters up to it, and 1 - momentum of the batch
# norms in the built model of tf_keras 2.21.
PINS = {
    "densenet201": ((128, 7, 7), 17_217_024, 0.01),
    "inception_resnet_v2": ((192, 8, 8), 47_437_408, 0.01),
    # Keras' with top 4,253,864, less Logits 1,025,000, conv_pw_13 1,052,672 and 19,840 statistics.
    "mobilenet_v1": ((1024, 7, 7), 2_156_352, 0.01),
    "mobilenet_v2": ((960, 7, 7), 861_952, 0.001),
    "mobilenet_v3_large": ((960, 7, 7), 2_200_512, 0.001),
    "mobilenet_v3_small": ((576, 7, 7), 648_464, 0.001),
    "nasnet_large": ((672, 11, 11), 77_835_510, 0.0003),
    "nasnet_mobile": ((176, 7, 7), 3_739_298, 0.0003),
    "resnet152": ((2048, 7, 7), 49_218_624, 0.01),
    "resnet50": ((2048, 7, 7), 23_508_032, 0.01),
    # Keras' with top 138,357,544, less fc1, fc2 and predictions 123,642,856 and block5 7,079,424.
    "baseline/vgg16": ((512, 28, 28), 7_635_264, None),
    # timm's with fc 21,797,672, less fc 513,000.
    "baseline/resnet34": ((512, 7, 7), 21_284_672, 0.01),
    # Their whole number in timm less the last layer's, 1,000 (C + 1).
    "baseline/efficientnet_b0": ((1280, 7, 7), 5_288_548 - 1_281_000, 0.01),
    "baseline/efficientnet_b1": ((1280, 8, 8), 7_794_184 - 1_281_000, 0.01),
    "baseline/efficientnet_b2": ((1408, 9, 9), 9_109_994 - 1_409_000, 0.01),
    "baseline/efficientnet_b3": ((1536, 10, 10), 12_233_232 - 1_537_000, 0.01),
    "baseline/efficientnet_b4": ((1792, 12, 12), 19_341_616 - 1_793_000, 0.01),
    "baseline/efficientnet_b5": ((2048, 15, 15), 30_389_784 - 2_049_000, 0.01),
    "baseline/inception_v3": ((2048, 8, 8), 23_834_568 - 2_049_000, 0.01),
    "baseline/timm": ((512, 7, 7), 11_689_512 - 513_000, 0.01),
    "baseline/efficientnet_lite0": ((1280, 7, 7), 4_652_008 - 1_281_000, 0.01),
    "baseline/senet154": ((2048, 7, 7), 115_088_984 - 2_049_000, 0.01),
    "baseline/regnety_032": ((1512, 7, 7), 19_436_338 - 1_513_000, 0.1),
}


def test_every_backbone_has_a_pin():
    assert PINS.keys() == {*FILES}


@every_backbone
def test_a_backbone_is_as_pinned(on_meta, name):
    backbone = on_meta(name)
    shape, parameters, momentum = PINS[name]
    assert backbone.feature_shape() == shape
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone.spec.keras_momentum == momentum
    expected = "resnet18" if name == "baseline/timm" else name.split("/")[-1]
    assert backbone.spec.name == expected


@every_backbone
def test_is_fed_as_its_imagenet_weights_were_trained(on_meta, name):
    spec = on_meta(name).spec
    if spec.pretrained is None:
        assert name == "nasnet_mobile"
        return
    released = get_pretrained_cfg(f"{spec.timm_model}.{spec.pretrained}")
    assert released.has_weights
    assert (spec.mean, spec.std) == (released.mean, released.std)
    assert (3, spec.input_size, spec.input_size) == released.input_size


@cache
def uncut(timm_model, size):
    """What every module of the uncut model gives for the image, with the weights of seed 0."""
    torch.manual_seed(0)
    nasnet = timm_model == "nasnetamobile"
    model = (NASNetAMobile() if nasnet else timm.create_model(timm_model)).eval()
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, __, t, name=name: seen.update({name: t.clone() if name else None})
        )
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=generator)
    with torch.no_grad():
        model((image / 255 - 0.5) / 0.5)
    return image, seen


NASNET = "cell_11.comb_iter_4_left"
RESNET = "repeat_2.8.branch0.bn"


@pytest.mark.parametrize(
    ("name", "size", "cut", "module", "offset"),
    [
        ("mobilenet_v3_small", 64, "blocks.4.2.bn2", "blocks.4.2.bn2", 0),  # with its hard-swish
        ("mobilenet_v2", 64, "blocks.5.1.conv_dw", "blocks.5.1.conv_dw", 0),
        # The graph counts the repeats of a name by itself: its node act_1 is the module act_2,
        # the second activation of the branch, as Keras' activation_186 is.
        ("nasnet_mobile", 64, f"{NASNET}.act_1", f"{NASNET}.act_2", 0),
        # Between batch norm and activation timm has a drop, here an identity.
        ("inception_resnet_v2", 96, f"{RESNET}.before_act", f"{RESNET}.drop", 0),
        ("mobilenet_v3_small", 64, "blocks.5.0.bn1.before_act", "blocks.5.0.bn1.drop", 0),
        ("mobilenet_v3_small", 64, "blocks.5.0.bn1", "blocks.5.0.bn1.act", 0),
        # What Keras adds inside a hard-swish.
        ("mobilenet_v3_small", 64, "conv_head+3", "conv_head", 3),
        ("mobilenet_v3_small", 64, "blocks.4.2.se.conv_expand+3", "blocks.4.2.se.conv_expand", 3),
        ("mobilenet_v3_small", 64, "blocks.5.0.bn1.before_act+3", "blocks.5.0.bn1.drop", 3),
    ],
)
def test_a_cut_gives_what_the_uncut_model_computes_there(build, name, size, cut, module, offset):
    torch.manual_seed(0)
    fed = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": size}
    backbone = build(name, cut=cut, **fed).eval()
    image, seen = uncut(backbone.spec.timm_model, size)
    with torch.no_grad():
        ours, expected = backbone(image), seen[module] + offset
    assert expected.std() > 0
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("cut", "shape"),
    [
        ("blocks.2", (32, 8, 8)),
        ("conv_stem", (24, 32, 32)),
        ("global_pool.flatten", (256,)),  # behind timm's own pooling
        ("classifier", (1000,)),
    ],
)
def test_a_cut_may_be_any_node(build, cut, shape):
    assert build(cut=cut).feature_shape() == shape


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 64, 64, 3)])
def test_an_image_of_another_kind_or_shape_is_refused(tiny, shape):
    with pytest.raises(TypeError, match=r"uint8.*found torch\.float32.*as it was decoded"):
        tiny(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\), found"):
        tiny(torch.zeros(shape, dtype=torch.uint8))


def test_batch_norm_statistics_move_in_training_only_and_can_move_as_in_keras(build, image):
    backbone = build()
    mean = backbone.trunk.get_buffer("bn1.running_mean")  # from 0
    with torch.no_grad():
        backbone.eval()(image)
        assert not mean.any()
        backbone.train()(image)
        assert mean.any()
        moved = mean.clone()
        mean.zero_()
        backbone.move_statistics_as_keras()
        backbone(image)
    torch.testing.assert_close(mean * 100, moved)  # 0.001 instead of 0.1


@pytest.mark.parametrize("training", [True, False])
def test_asking_for_the_shape_changes_nothing(tiny, training):
    before = {name: value.clone() for name, value in tiny.train(training).state_dict().items()}
    assert tiny.feature_shape() == (192, 2, 2)
    assert all(module.training == training for module in tiny.modules())
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())


def test_an_image_too_small_for_the_backbone_is_refused(build):
    backbone = build(timm_model="test_convnext", cut="stages.3", input_size=8)
    with pytest.raises(SkinlesionError, match=r"8 x 8 pixels \(backbone\.input_size\)"):
        backbone.feature_shape()
    assert backbone.training


DROP = {"after": ["conv_stem"], "size": 5, "probability": 0.1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.5, 0.5]}, r"backbone\.mean\.2: expected a value"),
        ({"mean": 0.5}, r"backbone\.mean=0\.5: expected a valid tuple"),
        ({"std": ["a", "b", 1]}, r"backbone\.std\.0=a: expected a valid number; .*std\.1=b"),
        ({"std": [0.5, 0, 0.5]}, r"backbone\.std\.1=0.*: expected greater than 0"),
        ({"mean": [0.5, 0.5, float("nan")]}, r"backbone\.mean\.2=nan: expected a finite number"),
        ({"input_size": "224"}, r"backbone\.input_size=224: expected a valid integer"),
        ({"input_size": 0}, r"backbone\.input_size=0: expected greater than or equal to 1"),
        ({"input_size": 20_000}, r"backbone\.input_size=20000: expected less than or .* 4096"),
        ({"cut": None}, r"backbone\.cut=None: expected a valid string"),
        ({"cut": "blocks.4.0.bn22"}, r"no such node\. Nearest: .*blocks\.4\.0\.bn2\b"),
        ({"cut": ""}, r"no such node\. Nearest: .*classifier"),
        ({"cut": "conv_stem.before_act"}, "is no batch norm joined with an activation"),
        ({"cut": "blocks.3.0.se.mul.before_act"}, "is no batch norm joined with an activation"),
        ({"timm_model": "mobilnet"}, r"timm_model=mobilnet .*Unknown model"),
        ({"timm_model": "swin_tiny_patch4_window7_224"}, r"its maps lie as \(h, w, C\)"),
        ({"timm_model": "hf-hub:me/model"}, r"timm_model=hf-hub:me/model: .* not of a hub"),
        ({"timm_model": "local-dir:/tmp"}, r"timm_model=local-dir:/tmp: .* or a folder"),
        ({"timm_kwargs": {"bn_epsilon": 1e-3}}, r"'bn_epsilon'"),
        ({"timm_kwargs": {"act_layer": "swishy"}}, r"cannot be built: .*swishy"),
        ({"timm_kwargs": [1]}, r"backbone\.timm_kwargs.*: expected a valid dictionary"),
        ({"timm_kwargs": {"checkpoint_path": "x"}}, r"of the architecture, not checkpoint_path"),
        ({"channels": "grb"}, r"backbone\.channels=grb: expected 'rgb' or 'bgr'"),
        ({"strides": "keras"}, r"backbone\.strides=keras: expected 'keras_v1'"),
        ({"strides": "keras_v1"}, r"only a ResNet has such strides, not test_efficientnet"),
        ({"keras_momentum": 2}, r"backbone\.keras_momentum=2: expected less than or equal to 1"),
        ({"drop_block": DROP}, r"no module without weights conv_stem, but for example blocks"),
        ({"inputsize": 224}, r"inputsize: there is no such key\. Did you mean backbone\.in"),
    ],
)
def test_a_wrong_field_is_refused_by_name(build, changes, message):
    with pytest.raises(SkinlesionError, match=message) as refusal:
        build(**changes)
    assert "\n" not in str(refusal.value)


def test_drop_block_grows_with_the_steps_and_wants_a_map(build):
    drop = {"after": ["blocks.3.0.aa"], "size": 1, "probability": 0.4, "ramp": 8}
    (layer,) = (m for m in build(drop_block=drop).modules() if hasattr(m, "at_step"))
    t = torch.ones(4, 1, 50, 50)
    for step, share in ((0, 0), (2, 0.1), (8, 0.4), (99, 0.4)):
        layer.at_step(step)
        assert (layer(t) == 0).float().mean().item() == pytest.approx(share, abs=0.03)
    vit = {"timm_model": "test_vit", "cut": "fc_norm", "input_size": 160}
    with pytest.raises(SkinlesionError, match=r"mlp.act gives a tensor \(1, 101, 192\), expected"):
        build(**vit, drop_block=drop | {"after": ["blocks.0.mlp.act"]}).feature_shape()


def test_keras_strides_stand_on_the_first_convolution_of_a_stage(build):
    with torch.device("meta"):
        backbone = build("resnet50", strides="keras_v1")
        assert backbone.feature_shape() == (2048, 7, 7)
    for layer in (backbone.trunk.layer2, backbone.trunk.layer3, backbone.trunk.layer4):
        block = layer.get_submodule("0")
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
