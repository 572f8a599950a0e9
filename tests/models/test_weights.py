"""Pretrained weights: files of every kind, sound and damaged, and timm's tags without a network."""

import json
import logging
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import requests
import timm
import torch
from safetensors.torch import load_file, save_file

from skinlesion.errors import SkinlesionError
from skinlesion.models import Backbone, BackboneSpec
from skinlesion.models.weights import find_weights, resolve_spec

MODEL = "tf_mobilenetv3_small_100"
SHARED = Path(__file__).parents[3] / "shared/weights"


@pytest.fixture(scope="module")
def state():
    """A whole state dict of the smallest backbone, other than what any model starts with."""
    generator = torch.Generator().manual_seed(0)
    start = timm.create_model(MODEL).state_dict()
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in start.items()
    }


def build(config, weights, *name, **changes):
    """A backbone with its weights, in the steps of a run."""
    spec = BackboneSpec.from_config(config(*name, **changes))
    backbone = Backbone(resolve_spec(spec, str(weights)))
    backbone.load(str(weights))
    return backbone


def assert_holds(backbone, state):
    """The trunk's parameters and statistics are the state's."""
    loaded = backbone.trunk.state_dict()
    assert len(loaded) > 100
    for name, value in loaded.items():
        assert torch.equal(value, state[name].to(value.dtype)), name


def refused(config, weights, match, **changes):
    with pytest.raises(SkinlesionError, match=match) as refusal:
        build(config, weights, **changes)
    assert "\n" not in str(refusal.value)
    assert "weights_only" not in str(refusal.value)  # torch advises to run the file's code
    return str(refusal.value)


def test_none_starts_from_scratch(config):
    torch.manual_seed(0)
    first = build(config, "none")
    second = build(config, "none")
    assert not torch.equal(first.trunk.conv_stem.weight, second.trunk.conv_stem.weight)
    assert first.uninitialised == []


def test_a_safetensors_file_is_loaded(config, state, tmp_path):
    save_file(state, tmp_path / "w.safetensors")
    backbone = build(config, tmp_path / "w.safetensors")
    assert_holds(backbone, state)
    assert backbone.uninitialised == []
    assert backbone.spec == BackboneSpec.from_config(config())


@pytest.mark.parametrize(
    ("file", "wrap"),
    [
        ("w.pth", dict),
        ("w.pt", OrderedDict),
        ("w.bin", dict),
        ("w.pth", lambda state: {"state_dict": state, "epoch": 3}),
    ],
    ids=["pth", "pt", "bin", "nested"],
)
def test_a_file_of_torch_is_loaded(config, state, tmp_path, file, wrap):
    torch.save(wrap(state), tmp_path / file)
    assert_holds(build(config, tmp_path / file), state)


def test_half_precision_is_loaded_as_float32(config, state, tmp_path):
    half = {name: v.half() if v.ndim == 4 else v for name, v in state.items()}
    save_file(half, tmp_path / "w.safetensors")
    backbone = build(config, tmp_path / "w.safetensors")
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert_holds(backbone, half)


def test_what_lies_behind_the_cut_may_be_missing(config, state, tmp_path):
    save_file(
        {name: v for name, v in state.items() if not name.startswith(("conv_head", "classifier"))},
        tmp_path / "w.safetensors",
    )
    assert build(config, tmp_path / "w.safetensors").uninitialised == []


def test_what_the_file_lacks_is_listed(config, state, tmp_path, caplog):
    missing = ["bn1.running_var", "blocks.4.0.conv_dw.weight"]
    counters = [name for name in state if name.endswith("num_batches_tracked")]
    torch.save(
        {name: v for name, v in state.items() if name not in missing + counters},
        tmp_path / "w.pth",
    )
    with caplog.at_level(logging.WARNING):
        backbone = build(config, tmp_path / "w.pth")
    assert backbone.uninitialised == missing  # and not the counters, which have no effect
    (record,) = caplog.records
    assert f"uninitialised: {', '.join(missing)}" in record.getMessage()


def test_a_file_with_other_shapes_is_refused_with_the_first(config, state, tmp_path):
    wider = state | {"conv_stem.weight": torch.zeros(32, 3, 3, 3)}
    save_file(wider, tmp_path / "w.safetensors")
    message = r"conv_stem\.weight is \(32, 3, 3, 3\), expected \(16, 3, 3, 3\)"
    refused(config, tmp_path / "w.safetensors", message)


def test_a_file_with_other_names_is_refused_with_the_first(config, state, tmp_path):
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "w.pth")
    message = refused(config, tmp_path / "w.pth", r"does not have: module\.blocks\.0\.0\.bn1\.bias")
    assert "and 239 more" in message  # 244 names, five shown
    assert "backbone.timm_model" in message


def test_a_file_of_the_classifier_alone_is_refused(config, state, tmp_path):
    classifier = {name: v for name, v in state.items() if name.startswith("classifier")}
    save_file(classifier, tmp_path / "w.safetensors")
    refused(config, tmp_path / "w.safetensors", "no name of the backbone is in it")


class Code:
    """A pickle that runs code when it is read without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("save", [torch.save, lambda o, f: f.write_bytes(pickle.dumps(o, 2))])
def test_code_in_a_file_is_refused_and_not_run(config, tmp_path, save):
    save({"conv_stem.weight": Code(tmp_path / "trace")}, tmp_path / "w.pth")
    refused(config, tmp_path / "w.pth", "w.pth cannot be read as weights: .* more than names and")
    assert not (tmp_path / "trace").exists()


def test_a_whole_module_is_refused(config, tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "w.pth")
    refused(config, tmp_path / "w.pth", r"torch\.save\(model\.state_dict\(\), …\)")


@pytest.mark.parametrize(
    "content",
    [[1, 2], torch.zeros(2), {"model": {"a": torch.zeros(2)}}, {0: torch.zeros(2)}],
    ids=["list", "tensor", "other nesting", "numbered"],
)
def test_a_file_without_state_dict_is_refused(config, tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    refused(config, tmp_path / "w.pth", "w.pth holds no state dict")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello, no weights at all"], ids=["empty", "text"])
def test_a_file_of_another_kind_is_refused(config, tmp_path, suffix, content):
    file = tmp_path / f"w.{suffix}"
    file.write_bytes(content)
    refused(config, file, f"w.{suffix} cannot be read as")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_damaged_file_is_refused(config, state, tmp_path, suffix):
    file = tmp_path / f"w.{suffix}"
    (torch.save if suffix == "pth" else save_file)(state, file)
    file.write_bytes(file.read_bytes()[:-1000])
    refused(config, file, f"w.{suffix} cannot be read as")


@pytest.mark.parametrize("weights", ["nowhere.pth", "imagnet", "", "."])
def test_a_missing_file_is_refused_with_what_is_possible(config, weights):
    refused(config, weights, "no such file. Expected imagenet, none, the path of")


@pytest.mark.parametrize("weights", ["imagenet", "none", "a/file.pth", ""])
def test_what_is_no_folder_stays_as_it_is(weights):
    assert find_weights(weights, "resnet50") == weights


def test_of_a_folder_the_file_of_the_backbone_is_taken(tmp_path):
    for name, owner in (("a", "resnet50"), ("b", "mobilenet_v2"), ("c", None)):
        header = {"backbone": owner} if owner else None
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors", metadata=header)
    (tmp_path / "README.md").touch()
    assert find_weights(str(tmp_path), "mobilenet_v2") == str(tmp_path / "b.safetensors")
    with pytest.raises(SkinlesionError, match=r"no file in this folder is for densenet201") as no:
        find_weights(str(tmp_path), "densenet201")
    assert "Its headers name: mobilenet_v2, resnet50." in str(no.value)

    save_file({"x": torch.zeros(1)}, tmp_path / "d.safetensors", {"backbone": "resnet50"})
    with pytest.raises(SkinlesionError, match=r"several .* a\.safetensors, d\.safetensors\. Name"):
        find_weights(str(tmp_path), "resnet50")


@pytest.fixture
def with_header(state, tmp_path):
    def save(**header):
        file = tmp_path / "w.safetensors"
        save_file(state, file, metadata=header)
        return file

    return save


def test_a_header_says_how_to_build_and_feed(config, with_header):
    file = with_header(
        backbone="mobilenet_v3_small",
        timm_model=MODEL,
        timm_kwargs='{"bn_eps": 0.25}',
        mean="[0.1, 0.2, 0.3]",
        std="[0.4, 0.5, 0.6]",
        source="nowhere",
    )
    # The config says otherwise throughout.
    backbone = build(config, file, timm_model="mobilenetv3_small_100", timm_kwargs={"bn_eps": 1.0})
    assert backbone.spec.timm_model == MODEL
    assert backbone.trunk.bn1.eps == 0.25
    assert backbone.spec.mean == (0.1, 0.2, 0.3)
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([25.5, 51.0, 76.5]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor([102.0, 127.5, 153.0]))
    assert backbone.spec.cut == config()["cut"]


def test_a_header_says_where_the_strides_are(config, with_header):
    refused(config, with_header(strides="keras_v1"), "strides=keras_v1: .* for a ResNet")


def test_weights_of_another_backbone_are_refused(config, with_header):
    file = with_header(backbone="resnet50")
    refused(config, file, "weights of resnet50, but backbone=mobilenet_v3_small was asked for")


@pytest.mark.parametrize(
    "header",
    [
        {"mean": "nonsense"},
        {"mean": "[0.5, 0.5]"},
        {"std": "[0, 0, 0]"},
        {"timm_kwargs": "[1]"},
        {"timm_kwargs": "{"},
    ],
)
def test_a_damaged_header_is_refused(config, with_header, header):
    refused(config, with_header(**header), "w.safetensors: its header does not say how to build")


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("file", "name", "model", "kwargs", "pixels"),
    [
        (
            *("mobilenetv3_small_100", "mobilenet_v3_small", "mobilenetv3_small_100"),
            *({"bn_eps": 1e-3, "bn_momentum": 0.01}, IMAGENET),
        ),
        ("mobilenetv2_100", "mobilenet_v2", "mobilenetv2_100", {}, IMAGENET),
        (
            *("mobilenetv1_100_keras", "mobilenet_v1", "mobilenetv1_100"),
            *({"pad_type": "same", "bn_eps": 1e-3}, HALVES),
        ),
        ("resnet50_keras", "resnet50", "resnet50", {}, IMAGENET),
        (
            *("mobilenetv3_large_100_rvm", "mobilenet_v3_large", "mobilenetv3_large_100"),
            *({"bn_eps": 1e-3}, IMAGENET),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shared_weights_give_what_their_readme_builds(
    config, image, file, name, model, kwargs, pixels
):
    """Build by hand what the README beside the weights says, and compare the feature maps."""
    path = SHARED / f"{file}.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    fields = config(name, input_size=64)
    backbone = build(config, path, name, input_size=64).eval()
    state = load_file(path)
    assert_holds(backbone, state)
    assert backbone.uninitialised == []

    uncut = timm.create_model(model, **kwargs).eval()
    if file == "resnet50_keras":
        assert {v.dtype for k, v in state.items() if v.ndim == 4} == {torch.float16}
        for layer in (uncut.layer2, uncut.layer3, uncut.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    assert not uncut.load_state_dict(state, strict=False).unexpected_keys
    seen = []
    uncut.get_submodule(fields["cut"]).register_forward_hook(lambda _, __, t: seen.append(t))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in pixels)
    with torch.no_grad():
        uncut((image / 255 - mean) / std)
        t = backbone(image)
    torch.testing.assert_close(t, seen[0], rtol=1e-3, atol=1e-4 * seen[0].abs().max().item())


def test_shared_weights_without_conv_head_list_it(config):
    path = SHARED / "mobilenetv3_large_100_rvm.safetensors"
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    backbone = build(config, path, "mobilenet_v3_large", cut="conv_head")
    assert backbone.uninitialised == ["conv_head.weight", "conv_head.bias"]


class Hub:
    """Stands in for the hub: reachable or not, holding one file or none."""

    def __init__(self, online, file=None):
        self.online, self.file, self.asked = online, file, []

    def head(self, url, timeout):
        assert timeout <= 10
        if not self.online:
            raise requests.ConnectionError("no route to host")

    def download(self, repository, filename, *, local_files_only):
        self.asked.append((repository, filename, local_files_only))
        if self.file is None:
            raise FileNotFoundError("it is\nnot there")
        return str(self.file)


@pytest.fixture
def hub(monkeypatch):
    def install(online, file=None):
        hub = Hub(online, file)
        monkeypatch.setattr("requests.head", hub.head)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", hub.download)
        return hub

    return install


def test_imagenet_without_network_names_the_offline_way(config, hub):
    asked = hub(online=False).asked
    message = refused(config, "imagenet", rf"timm/{MODEL}\.in1k could not be downloaded \(no net")
    assert "weights=<file.safetensors or .pth>" in message
    assert asked == [(f"timm/{MODEL}.in1k", "model.safetensors", True)]  # and nothing was retried


def test_imagenet_without_network_takes_what_was_downloaded_before(config, hub, state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    hub(online=False, file=tmp_path / "model.safetensors")
    assert_holds(build(config, "imagenet"), state)


def test_imagenet_loads_the_pinned_tag(config, hub, state, tmp_path):
    save_file(state, tmp_path / "model.safetensors")
    asked = hub(online=True, file=tmp_path / "model.safetensors").asked
    backbone = build(config, "imagenet")
    assert asked == [(f"timm/{MODEL}.in1k", "model.safetensors", False)]
    assert_holds(backbone, state)
    assert backbone.uninitialised == []


def test_imagenet_that_the_hub_does_not_have_is_refused(config, hub):
    hub(online=True)
    refused(config, "imagenet", r"could not be downloaded \(it is\)")


def test_a_damaged_download_is_refused(config, hub, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    hub(online=True, file=tmp_path / "model.safetensors")
    refused(config, "imagenet", f"timm_model={MODEL} .*cannot be built")


def test_imagenet_for_nasnet_mobile_is_refused_with_the_mend(config, hub):
    asked = hub(online=True).asked
    with pytest.raises(SkinlesionError, match="no ImageNet weights for nasnet_mobile") as refusal:
        build(config, "imagenet", "nasnet_mobile")
    assert "weights=<file>" in str(refusal.value)
    assert asked == []


def test_a_spec_survives_json(config):
    spec = BackboneSpec.from_config(config(timm_kwargs={"bn_eps": 1e-3}))
    assert BackboneSpec.from_config(json.loads(json.dumps(vars(spec)))) == spec
