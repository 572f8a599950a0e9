"""Every backbone's file, and what a backbone does with an image.

That each is the authors' Keras model up to their cut is the ledger's, see tests/fidelity.
"""

from pathlib import Path

import pytest
import timm
import torch
from omegaconf import OmegaConf
from timm.models import get_pretrained_cfg
from torch import nn

from skinlesion.errors import SkinlesionError
from skinlesion.models import Backbone, BackboneSpec

CONF = Path(__file__).parents[2] / "conf/backbone"
TEN = {
    *("resnet50", "resnet152", "densenet201", "inception_resnet_v2"),
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"),
    *("nasnet_mobile", "nasnet_large"),
}
FILES = {path.relative_to(CONF).as_posix()[:-5]: path for path in CONF.rglob("*.yaml")}
every_backbone = pytest.mark.parametrize("name", sorted(FILES))


def fields(name):
    return OmegaConf.to_container(OmegaConf.load(FILES[name]))


def test_the_ten_are_the_group_and_vgg16_is_a_baseline():
    assert set(FILES) == TEN | {"baseline/vgg16"}


@every_backbone
def test_is_named_after_its_file(name):
    assert fields(name)["name"] == FILES[name].stem


@every_backbone
def test_is_fed_as_its_imagenet_weights_were_trained(name):
    config = fields(name)
    if config["pretrained"] is None:
        assert name == "nasnet_mobile"
        return
    released = get_pretrained_cfg(f"{config['timm_model']}.{config['pretrained']}")
    assert released.has_weights
    assert tuple(config["mean"]) == released.mean
    assert tuple(config["std"]) == released.std
    assert (3, config["input_size"], config["input_size"]) == released.input_size


@pytest.fixture(scope="module")
def small(config):
    return Backbone(BackboneSpec.from_config(config()))


def build(config, **changes):
    return Backbone(BackboneSpec.from_config(config(**changes)))


def uncut_values(fields, image, *modules):
    """What modules of the uncut model give for the image, with the numbers of `seeded`."""
    torch.manual_seed(0)
    uncut = timm.create_model(fields["timm_model"]).eval()
    seen = {}
    for name in modules:
        uncut.get_submodule(name).register_forward_hook(
            lambda _, __, t, name=name: seen.update({name: t.clone()})
        )
    mean, std = (torch.tensor(fields[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        uncut((image / 255 - mean) / std)
    return [seen[name] for name in modules]


def seeded(fields, image, cut):
    torch.manual_seed(0)
    backbone = Backbone(BackboneSpec.from_config(fields | {"cut": cut})).eval()
    with torch.no_grad():
        return backbone(image)


def close(ours, expected):
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("mobilenet_v3_large", "blocks.5.2.bn2"),  # with its hard-swish, inside timm's module
        ("mobilenet_v2", "blocks.5.1.conv_dw"),  # before its batch norm
        # The graph counts the repeats of a name by itself: its node act_1 is the module act_2,
        # the second activation of the branch, as Keras' activation_186 is.
        ("nasnet_mobile", "cell_11.comb_iter_4_left.act_2"),
    ],
)
def test_feature_map_is_what_the_uncut_model_computes_there(config, image, name, module):
    fields = config(name, input_size=64)
    (expected,) = uncut_values(fields, image, module)
    close(seeded(fields, image, fields["cut"]), expected)
    assert expected.std() > 0


class PassThrough(nn.Module):
    def forward(self, x):
        return {"t": x}


def test_pixels_are_normalised_by_mean_and_std_of_the_weights(config):
    backbone = build(config, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    backbone.trunk = PassThrough()
    black_to_white = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2)
    # (0 - mean) / std and (1 - mean) / std, channel by channel
    expected = [[-2.117904, 2.248908], [-2.035714, 2.428571], [-1.804444, 2.64]]
    torch.testing.assert_close(
        backbone(black_to_white)[0, :, 0], torch.tensor(expected), rtol=0, atol=1e-5
    )


def test_a_float_image_is_refused_with_the_mend(small):
    with pytest.raises(TypeError, match=r"uint8.*found torch\.float32.*as it was decoded"):
        small(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (3, 64, 64), (1, 64, 64, 3)])
def test_an_image_of_another_shape_is_refused(small, shape):
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\), found"):
        small(torch.zeros(shape, dtype=torch.uint8))


def test_batch_norm_statistics_move_in_training_only(config, image):
    backbone = build(config)
    before = backbone.trunk.state_dict()["bn1.running_mean"].clone()
    with torch.no_grad():
        backbone.eval()(image)
        assert torch.equal(backbone.trunk.state_dict()["bn1.running_mean"], before)
        backbone.train()(image)
    assert not torch.equal(backbone.trunk.state_dict()["bn1.running_mean"], before)


def test_batch_norm_statistics_can_move_as_slowly_as_in_keras(config, image):
    timm_s, keras = build(config), build(config)
    keras.load_state_dict(timm_s.state_dict())
    keras.move_statistics_as_keras()
    moved = []
    for backbone in (timm_s, keras):
        with torch.no_grad():
            backbone.train()(image)
        moved.append(backbone.trunk.state_dict()["bn1.running_mean"])  # from 0
    torch.testing.assert_close(moved[1] * 100, moved[0])  # 0.001 instead of 0.1


# 1 - momentum of the built models of tf_keras 2.21.
KERAS_MOMENTA = {
    **dict.fromkeys(["resnet50", "resnet152", "densenet201", "inception_resnet_v2"], 0.01),
    **dict.fromkeys(["mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"], 0.001),
    **dict.fromkeys(["nasnet_mobile", "nasnet_large"], 0.0003),
    "mobilenet_v1": 0.01,
    "baseline/vgg16": None,
}


@every_backbone
def test_keras_momentum_is_keras(name):
    assert fields(name)["keras_momentum"] == KERAS_MOMENTA[name]


@pytest.mark.parametrize("training", [True, False])
def test_asking_for_the_shape_changes_nothing(config, training):
    backbone = build(config).train(training)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert backbone.feature_shape() == (576, 2, 2)
    assert all(module.training == training for module in backbone.modules())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_blue_comes_first_where_the_spec_says_so(config):
    backbone = build(config, mean=[0, 0, 0], std=[1 / 255] * 3, channels="bgr")
    backbone.trunk = PassThrough()
    red_green_blue = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    assert backbone(red_green_blue).flatten().tolist() == pytest.approx([30, 20, 10])


def test_cut_may_be_any_node(config):
    assert build(config, cut="blocks.2").feature_shape() == (40, 4, 4)
    assert build(config, cut="conv_stem").feature_shape() == (16, 32, 32)


def test_an_unknown_cut_is_answered_with_the_nearest_nodes(config):
    with pytest.raises(SkinlesionError, match=r"no such node\. Nearest: .*blocks\.4\.2\.bn2\b"):
        build(config, cut="blocks.4.2.bn22")


def test_a_cut_like_no_node_is_still_answered_with_nodes(config):
    with pytest.raises(SkinlesionError, match=r"no such node\. Nearest: .*classifier"):
        build(config, cut="")


@pytest.mark.parametrize(("cut", "shape"), [("flatten", (1024,)), ("classifier.linear", (1000,))])
def test_a_cut_behind_timms_own_pooling_gives_a_vector(config, cut, shape):
    assert build(config, cut=cut).feature_shape() == shape


@pytest.mark.parametrize(
    ("name", "size", "node"),
    [
        ("mobilenet_v3_large", 64, "blocks.6.0.bn1"),  # Table 9's [:260]
        ("inception_resnet_v2", 96, "repeat_2.8.branch0.bn"),
    ],
)
def test_before_act_is_the_batch_norm_before_its_activation(config, image, name, size, node):
    fields = config(name, input_size=size)
    image = torch.nn.functional.interpolate(image, size)
    # Between batch norm and activation timm has a drop, here an identity.
    before, after = uncut_values(fields, image, f"{node}.drop", f"{node}.act")
    assert (before < 0).any()  # the activation changes something
    close(seeded(fields, image, f"{node}.before_act"), before)
    close(seeded(fields, image, node), after)


@pytest.mark.parametrize(
    ("node", "cut"),
    [
        ("conv_head", "conv_head+3"),  # Table 9's [:266]
        ("blocks.5.2.se.conv_expand", "blocks.5.2.se.conv_expand+3"),  # [:251]
        ("blocks.6.0.bn1.drop", "blocks.6.0.bn1.before_act+3"),  # [:260]
    ],
)
def test_plus_three_is_what_keras_adds_inside_a_hard_swish(config, image, node, cut):
    fields = config("mobilenet_v3_large", input_size=64)
    (value,) = uncut_values(fields, image, node)
    close(seeded(fields, image, cut), value + 3)


@pytest.mark.parametrize("cut", ["conv_stem.before_act", "blocks.4.2.before_act"])
def test_only_a_batch_norm_with_its_activation_has_a_before_act(config, cut):
    with pytest.raises(SkinlesionError, match=r"is no batch norm joined with an activation"):
        build(config, cut=cut)


def test_an_image_too_small_for_the_backbone_is_refused(config):
    with torch.device("meta"):
        backbone = Backbone(
            BackboneSpec.from_config(config("inception_resnet_v2", input_size=32)),
        )
        with pytest.raises(SkinlesionError, match=r"32 x 32 pixels \(backbone\.input_size\)"):
            backbone.feature_shape()
    assert backbone.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [0.5, 0.5]}, r"backbone\.mean: expected three numbers, found \[0\.5, 0\.5\]"),
        ({"mean": 0.5}, r"backbone\.mean: expected three numbers, found 0\.5"),
        ({"std": ["a", "b", "c"]}, r"backbone\.std: expected three numbers"),
        ({"std": [0.5, 0, 0.5]}, r"backbone\.std: expected three numbers above 0"),
        ({"mean": [0.5, 0.5, float("nan")]}, r"backbone\.mean: expected three numbers"),
        ({"input_size": "224"}, r"backbone\.input_size: expected a number of pixels, found '224'"),
        ({"input_size": 0}, r"backbone\.input_size: expected a number of pixels, found 0"),
        ({"cut": None}, r"backbone\.cut: expected the name of a graph node, found None"),
        ({"timm_model": None}, r"backbone\.timm_model: expected one of timm's names"),
        ({"channels": "grb"}, r"backbone\.channels: expected rgb or bgr, found 'grb'"),
        ({"timm_kwargs": [1]}, r"backbone\.timm_kwargs: expected names and values, found \[1\]"),
        ({"inputsize": 224}, r"unexpected keyword argument 'inputsize'"),
    ],
)
def test_a_wrong_field_is_refused_by_name(config, changes, message):
    with pytest.raises(SkinlesionError, match=message):
        BackboneSpec.from_config(config(**changes))


def test_a_missing_field_is_refused_by_name(config):
    incomplete = {key: value for key, value in config().items() if key != "cut"}
    with pytest.raises(SkinlesionError, match=r"conf/backbone: .*'cut'"):
        BackboneSpec.from_config(incomplete)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timm_model": "mobilnet"}, r"timm_model=mobilnet .*Unknown model"),
        ({"timm_kwargs": {"bn_epsilon": 1e-3}}, r"'bn_epsilon'"),
        ({"timm_kwargs": {"act_layer": "swishy"}}, r"cannot be built: .*swishy"),
        ({"strides": "keras"}, r"strides=keras: only keras_v1"),
        ({"strides": "keras_v1"}, r"only keras_v1, for a ResNet"),
    ],
)
def test_what_timm_cannot_build_is_refused(config, changes, message):
    with pytest.raises(SkinlesionError, match=message):
        build(config, **changes)


def test_timm_kwargs_reach_timm(config):
    trunk = build(config, timm_kwargs={"bn_eps": 0.25}).trunk
    assert {m.eps for m in trunk.modules() if isinstance(m, nn.BatchNorm2d)} == {0.25}


def test_keras_strides_stand_on_the_first_convolution_of_a_stage(config):
    with torch.device("meta"):
        backbone = Backbone(BackboneSpec.from_config(config("resnet50", strides="keras_v1")))
        assert backbone.feature_shape() == (2048, 7, 7)
    for layer in (backbone.trunk.layer2, backbone.trunk.layer3, backbone.trunk.layer4):
        block = layer.get_submodule("0")
        assert (block.conv1.stride, block.conv2.stride) == ((2, 2), (1, 1))
