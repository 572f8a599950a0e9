"""Pretrained weights: files of every kind, sound and damaged, and timm's tags without a network."""

import argparse
import json
import logging
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import requests
import timm
import torch
from safetensors.torch import save_file

from skinlesion.errors import SkinlesionError, validated
from skinlesion.models.backbone import Backbone
from skinlesion.models.classifier import build_classifier
from skinlesion.models.spec import BackboneSpec
from skinlesion.models.weights import find_weights, resolve_spec

MODEL = "test_efficientnet"


@pytest.fixture(scope="module")
def state():
    """A whole state dict of the tiny backbone, other than what any model starts with."""
    generator = torch.Generator().manual_seed(0)
    start = timm.create_model(MODEL).state_dict()
    drawn = {name: torch.rand(v.shape, generator=generator).half() for name, v in start.items()}
    return {name: drawn[name].to(value.dtype) for name, value in start.items()}


@pytest.fixture(scope="module")
def load(config, tiny):
    """Take weights into a backbone, in the steps of a run; the tiny one is built once."""

    def take(weights, *name, **changes):
        fields = config(*name, **changes)
        spec = resolve_spec(validated(BackboneSpec, fields), str(weights))
        backbone = tiny if spec == tiny.spec else Backbone(spec)
        for value in backbone.trunk.state_dict().values():
            value.zero_()
        backbone.load(str(weights))
        return backbone

    return take


@pytest.fixture(scope="module")
def refused(load):
    def refuse(weights, match, *name, **changes):
        with pytest.raises(SkinlesionError, match=match) as refusal:
            load(weights, *name, **changes)
        assert "\n" not in str(refusal.value)
        assert "weights_only" not in str(refusal.value)  # torch advises to run the file's code
        return str(refusal.value)

    return refuse


def assert_holds(backbone, state):
    """The trunk's parameters and statistics are the state's."""
    loaded = backbone.trunk.state_dict()
    assert len(loaded) > 50
    for name, value in loaded.items():
        assert value.dtype == state[name].dtype, name
        assert torch.equal(value, state[name]), name


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(content, file):
    (save_file if file.suffix == ".safetensors" else torch.save)(content, file)
    return file


WRAPPED = {
    "nothing": OrderedDict,
    "half precision": lambda state: {name: v.half() for name, v in state.items()},
    "state_dict": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {}},
    "DataParallel": lambda state: prefixed(state, "module."),
    "torch's AveragedModel": lambda s: prefixed(s, "module.") | {"n_averaged": torch.ones(1)},
    "Lightning": lambda state: {
        "state_dict": prefixed(state, "model.") | {"loss.weight": torch.ones(7)},
        "pytorch-lightning_version": "2.6.4",
    },
    "Lightning of a compiled model": lambda state: prefixed(state, "model._orig_mod."),
    "timm's train.py": lambda state: {
        "state_dict": prefixed(state, "other."),
        "state_dict_ema": prefixed(state, "module."),
        "args": argparse.Namespace(lr=0.1),
    },
}


@pytest.mark.parametrize(
    ("wrap", "file"),
    [
        *((wrap, "w.pth") for wrap in WRAPPED),
        *(("nothing", f"w.{suffix}") for suffix in ("safetensors", "pt", "bin")),
        *(("DataParallel", "w.safetensors"), ("Lightning", "w.ckpt")),
    ],
)
def test_a_file_is_loaded_whatever_a_training_program_wrote_around_it(
    load, state, tmp_path, wrap, file
):
    backbone = load(saved(WRAPPED[wrap](state), tmp_path / file))
    assert_holds(backbone, state)
    assert backbone.uninitialised == []


def test_what_the_file_lacks_is_listed(load, state, tmp_path, caplog):
    missing = ["bn1.running_var", "blocks.4.0.conv_dw.weight"]
    behind_the_cut = ("conv_head", "classifier", "blocks.4.0.conv_pwl")
    there = {
        name: value
        for name, value in state.items()
        if name not in missing and not name.startswith(behind_the_cut) and "tracked" not in name
    }
    with caplog.at_level(logging.WARNING):
        backbone = load(saved(there, tmp_path / "w.pth"))
    assert backbone.uninitialised == missing  # and not the counters, which have no effect
    (record,) = caplog.records
    assert f"uninitialised: {', '.join(missing)}" in record.getMessage()


WIDER, NAN = torch.zeros(32, 3, 3, 3), torch.full((24, 3, 3, 3), float("nan"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_stem.weight": WIDER}, r"conv_stem\.weight is \(32, 3, 3, 3\), expected \(24, 3"),
        ({"conv_stem.weight": NAN}, r"holds numbers that are not finite: conv_stem\.weight\."),
        ({"net.a": NAN}, r"does not have: net\.a\. Set backbone\.timm_model"),
        (None, "no name of the backbone is in it"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(refused, state, tmp_path, change, message):
    content = state | change if change else {"classifier.weight": state["classifier.weight"]}
    refused(saved(content, tmp_path / "w.pth"), message)


class Code:
    """A pickle that runs code when it is read without care."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("save", [torch.save, lambda o, f: f.write_bytes(pickle.dumps(o, 2))])
def test_code_in_a_file_is_refused_and_not_run(refused, tmp_path, save):
    save({"conv_stem.weight": Code(tmp_path / "trace")}, tmp_path / "w.pth")
    refused(tmp_path / "w.pth", "w.pth cannot be read as weights: .* more than names and")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("prefix", ["network.", ""], ids=["checkpoint", "exported"])
def test_a_network_of_our_own_gives_its_backbone_fed_as_it_was(config, tmp_path, prefix):
    parts = {"attention": {"name": "paper"}, "metadata": {"name": "none"}}
    fed = config(mean=[0.1, 0.2, 0.3], keras_momentum=None)
    network = build_classifier(fed, **parts, classes=7, properties=[])
    content = prefixed(network.state_dict(), prefix)
    told, file = {"network": {"backbone": fed}}, tmp_path / "checkpoints" / "best.ckpt"
    file.parent.mkdir()
    if prefix:
        torch.save({"state_dict": content, "hyper_parameters": told}, file)
        with pytest.raises(SkinlesionError, match="this run is not finished"):
            find_weights(str(tmp_path), "tiny")
        (tmp_path / "DONE").touch()
        assert find_weights(str(tmp_path), "tiny") == str(file)
    else:
        file = file.with_name("model.safetensors")
        save_file(content, file, {"skinlesion": json.dumps(told)})
    spec = resolve_spec(validated(BackboneSpec, config()), str(file))
    assert spec.mean == (0.1, 0.2, 0.3)
    backbone = Backbone(spec)
    backbone.load(str(file))
    assert not backbone.uninitialised
    for name, value in backbone.trunk.state_dict().items():
        assert torch.equal(value, network.backbone.trunk.state_dict()[name])
    with pytest.raises(SkinlesionError, match="holds weights of tiny, but backbone=other"):
        resolve_spec(validated(BackboneSpec, config(name="other")), str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *(([1, 2], "holds"), (torch.zeros(2), "holds"), ({0: torch.zeros(2)}, "holds")),
        *(({"a": 1}, "holds"), (torch.nn.Linear(1, 1), "cannot be read as weights")),
        ({"params": {"a": WIDER}, "epoch": 1}, r"\(names and tensors\), but params, epoch\."),
    ],
)
def test_a_file_without_state_dict_is_refused(refused, tmp_path, content, message):
    refused(saved(content, tmp_path / "w.pth"), f"w.pth .*{message}")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", ["empty", "text", "damaged"])
def test_a_file_of_another_kind_or_damaged_is_refused(refused, state, tmp_path, suffix, content):
    whole = saved(state, tmp_path / f"whole.{suffix}").read_bytes()
    contents = {"empty": b"", "text": b"no weights at all", "damaged": whole[:-1000]}
    (tmp_path / f"w.{suffix}").write_bytes(contents[content])
    refused(tmp_path / f"w.{suffix}", f"w.{suffix} cannot be read as")


@pytest.mark.parametrize("weights", ["nowhere.pth", "imagnet", "", "."])
def test_a_missing_file_is_refused_with_what_is_possible(refused, weights):
    refused(weights, "no such file. Expected imagenet, none, the path of")


def test_of_a_folder_the_file_of_the_backbone_is_taken(tmp_path):
    for name, owner in (("a", "resnet50"), ("b", "mobilenet_v2"), ("c", None), ("d", "resnet50")):
        header = {"backbone": owner} if owner else None
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors", metadata=header)
    (tmp_path / "README.md").touch()
    assert find_weights(str(tmp_path), "mobilenet_v2") == str(tmp_path / "b.safetensors")
    with pytest.raises(SkinlesionError, match=r"no file in .* Its headers name: mobilenet_v2, res"):
        find_weights(str(tmp_path), "densenet201")
    with pytest.raises(SkinlesionError, match=r"several .* a\.safetensors, d\.safetensors\. Name"):
        find_weights(str(tmp_path), "resnet50")
    for weights in ("imagenet", "none", "a/file.pth", ""):
        assert find_weights(weights, "resnet50") == weights


def test_a_header_says_how_to_build_and_feed(load, state, tmp_path):
    header = {"backbone": "tiny", "timm_model": MODEL, "timm_kwargs": '{"bn_eps": 0.25}'}
    header |= {"mean": "[0.1, 0.2, 0.3]", "std": "[0.4, 0.5, 0.6]", "source": "nowhere"}
    save_file(state, tmp_path / "w.safetensors", metadata=header)
    # The config says otherwise throughout.
    backbone = load(tmp_path / "w.safetensors", timm_model="resnet18", timm_kwargs={"bn_eps": 1.0})
    assert backbone.trunk.bn1.eps == 0.25
    assert backbone.spec.mean == (0.1, 0.2, 0.3)
    torch.testing.assert_close(backbone.mean.flatten(), torch.tensor([25.5, 51.0, 76.5]))
    torch.testing.assert_close(backbone.std.flatten(), torch.tensor([102.0, 127.5, 153.0]))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"backbone": "resnet50"}, "weights of resnet50, but backbone=tiny was asked for"),
        ({"strides": "keras_v1"}, "strides=keras_v1: only a ResNet"),
        ({"mean": "nonsense"}, "w.safetensors: its header does not say how to build"),
        ({"mean": "[0.5, 0.5]"}, r"its header does not say how to build: mean\.2"),
        ({"std": "[0, 0, 0]"}, r"its header does not say how to build: std\.0=0"),
        ({"timm_kwargs": "[1]"}, "its header does not say how to build: timm_kwargs"),
        ({"timm_model": "hf-hub:x"}, "its header does not say how to build: timm_model=hf-hub:x"),
    ],
)
def test_a_header_that_cannot_be_followed_is_refused(refused, state, tmp_path, header, message):
    save_file(state, tmp_path / "w.safetensors", metadata=header)
    refused(tmp_path / "w.safetensors", message)


@pytest.fixture
def hub(monkeypatch):
    """Stands in for the hub, reachable or not, holding one file or none; returns what is asked."""

    def install(online, file=None):
        asked = []

        def head(url, timeout):
            if not online:
                raise requests.ConnectionError("no route to host")

        def download(*arguments, local_files_only):
            asked.append((*arguments, local_files_only))
            if file is None:
                raise FileNotFoundError("it is\nnot there")
            return str(file)

        monkeypatch.setattr("requests.head", head)
        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        return asked

    return install


@pytest.mark.parametrize("online", [True, False])
def test_imagenet_is_the_pinned_tag_without_network_as_downloaded_before(
    load, hub, state, tmp_path, online
):
    asked = hub(online, saved(state, tmp_path / "model.safetensors"))
    assert_holds(load("imagenet"), state)
    assert asked == [(f"timm/{MODEL}.r160_in1k", "model.safetensors", not online)]  # once


def test_imagenet_that_cannot_be_had_is_refused_with_the_mend(refused, hub, tmp_path):
    hub(online=False)
    message = refused("imagenet", rf"timm/{MODEL}\.r160_in1k could not be downloaded \(no net")
    assert "weights=<file.safetensors or .pth>" in message
    refused("imagenet", "no ImageNet weights for nasnet_mobile. weights=<file>", "nasnet_mobile")
    hub(online=True)
    refused("imagenet", r"could not be downloaded \(it is\)")
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    hub(online=True, file=tmp_path / "model.safetensors")
    refused("imagenet", "cannot be read as weights")


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
def test_a_network_with_a_mask_starts_as_it_was_trained(config, state, tmp_path, image, channels):
    file = tmp_path / "state.pth"
    torch.save(state, file)
    found = []
    for mask in (False, True):
        spec = config(channels=channels, mask=mask, mean=[0.4, 0.5, 0.6])
        backbone = Backbone(validated(BackboneSpec, spec, "backbone")).eval()
        backbone.load(str(file))
        masks = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
        with torch.no_grad():
            found.append(backbone(torch.cat([image, masks], dim=1) if mask else image))
    torch.testing.assert_close(*found)
