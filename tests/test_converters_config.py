"""What is published beside the tensors: the network, and how its images are prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models_golden as golden
import numpy as np
import pytest
import torch_files as files
from safetensors.numpy import save_file

from converters import command, config, facts
from converters.__main__ import main
from converters.errors import ConversionError
from converters.rules import find_layout
from oodjax import zoo
from oodjax.models import checkpoint

RESNET, VIT = "timm-resnet50", "timm-vit_base_patch16_224"
STATED = {
    "architecture": "resnet50",
    "global_pool": "avg",
    "num_classes": 3,
    "pretrained_cfg": {
        "tag": "a1_in1k",
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "test_crop_pct": 1.0,
        "mean": [0.5, 0.25, 0.125],
        "std": [0.5, 0.5, 0.25],
    },
}


def nested(**changes: Any) -> dict[str, Any]:
    return {**STATED, "pretrained_cfg": {**STATED["pretrained_cfg"], **changes}}  # type: ignore[dict-item]


def error_of(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("converters: ")
    return lines[0]


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        (RESNET, STATED | {"architecture": "resnetaa50"}, "says 'resnetaa50', which is not what timm-resnet50"),
        (RESNET, STATED | {"architecture": "resnetblur50.bt_in1k"}, "says 'resnetblur50', which is not"),
        (RESNET, nested(architecture="resnet50d") | {"architecture": None}, "says 'resnet50d', which is not"),
        (RESNET, {"model_type": "resnet"}, "says 'resnet', which is not"),
        (RESNET, STATED | {"model_args": {"output_stride": 8}}, "was built with output_stride=8"),
        (RESNET, STATED | {"model_args": {"norm_layer": "x"}}, "was built with norm_layer='x'"),
        (RESNET, STATED | {"global_pool": "max"}, "says global_pool 'max', but timm-resnet50 computes 'avg'"),
        (VIT, {"architecture": "vit_base_patch16_224", "global_pool": "avg"}, "global_pool 'avg', but timm-vit_base"),
        (f"{VIT}-avgpool", {"architecture": "vit_base_patch16_224", "global_pool": "token"}, "global_pool 'token'"),
        (VIT, {"architecture": "vit_base_patch16_gap_224"}, "says 'vit_base_patch16_gap_224', which is not"),
        (VIT, {"model_args": {"img_size": 384}}, "was built with img_size=384"),
        (VIT, {"input_size": [3, 384, 384]}, "says images of 384 pixels, but timm-vit_base_patch16_224 takes 224"),
        (RESNET, nested(mean=[123.7, 116.3, 103.5]), "mean is [123.7, 116.3, 103.5], expected three numbers from 0.0"),
        (RESNET, nested(mean=[float("nan")] * 3), "mean is [nan, nan, nan], expected three numbers"),
        (RESNET, nested(std=[0.2, 0.2]), "std is [0.2, 0.2], expected three numbers from 0.001 to 1"),
        (RESNET, nested(std="0.2"), "std is '0.2', expected three numbers"),
        (RESNET, nested(crop_pct=0), "crop_pct is 0, expected a share"),
        (RESNET, nested(crop_pct=float("nan")), "crop_pct is nan, expected a share"),
        (RESNET, nested(input_size=[3, 224, 256]), "input_size is [3, 224, 256], expected a square"),
        (RESNET, nested(input_size=[1, 224, 224]), "input_size is [1, 224, 224], expected a square"),
        (RESNET, nested(input_size="224"), "input_size is '224', expected [3, height, width]"),
        (RESNET, nested(interpolation=3), "interpolation is 3, expected a text"),
        (RESNET, {"architecture": ["x"]}, "architecture is ['x'], expected a text"),
        (RESNET, {"pretrained_cfg": 3}, "pretrained_cfg is 3, expected a table"),
        (RESNET, [1], "is no table of settings"),
    ],
)
def test_another_network_is_refused_before_its_tensors_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture, layout: str, content: object, message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    (tmp_path / "x.safetensors").touch()  # empty: reading it is another error
    error = error_of(capsys, tmp_path / "x.safetensors", "--layout", layout, "--to", tmp_path / "to")
    assert f"{tmp_path / 'config.json'}: " in error and message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "x.safetensors"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000])
def test_a_config_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "x.safetensors").touch()
    error = error_of(capsys, tmp_path / "x.safetensors", "--layout", RESNET, "--to", tmp_path / "to")
    assert "config.json: is no JSON; mend it or move it away" in error


@pytest.mark.parametrize(
    ("layout", "content"),
    [
        (RESNET, STATED),
        ("torchvision-resnet50", {"architecture": "tv_resnet50", "model_args": {"num_classes": 10, "in_chans": 3}}),
        (VIT, {"architecture": "deit_base_patch16_224", "global_pool": "token", "input_size": [3, 224, 224]}),
        (f"{VIT}-avgpool", {"architecture": "vit_base_patch16_224", "model_args": {"global_pool": "avg"}}),
        (RESNET, {"epochs": 90, "lr": 0.1}),
    ],
)
def test_what_is_exactly_ours_is_taken(tmp_path: Path, layout: str, content: dict) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    stated = config.read(tmp_path / "config.json")
    config.check(stated, find_layout(layout))
    assert stated.network == content.get("architecture")


@pytest.mark.parametrize(
    ("size", "share", "resize"), [(224, 0.875, 256), (224, 0.95, 235), (224, 0.9, 248), (288, 1.0, 288), (224, 1, 224)]
)
def test_resize_and_crop_are_timms(tmp_path: Path, size: int, share: float, resize: int) -> None:
    """floor(size / share), in timm's `transforms_imagenet_eval`."""
    (tmp_path / "config.json").write_text(json.dumps({"input_size": [3, size, size], "crop_pct": share}))
    stated = config.read(tmp_path / "config.json")
    assert (stated.crop, stated.resize) == (size, resize)


def test_the_shares_default_is_timms(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"input_size": [3, 288, 288]}))
    assert config.read(tmp_path / "config.json").resize == 329
    (tmp_path / "config.json").write_text(json.dumps({"crop_pct": 0.95}))
    assert config.read(tmp_path / "config.json").resize == 235


def test_what_is_asked_for_goes_first_and_each_origin_is_kept(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(STATED))
    stated = config.read(tmp_path / "config.json")
    plain, said = facts.settle(None), facts.settle(stated, std=(0.3, 0.3, 0.3))
    assert (plain.mean, plain.std, plain.resize, plain.crop) == (*facts.IMAGENET, 256, 224)
    assert plain.origins == {
        "architecture": "--layout; no config.json with the file",
        "mean": "ImageNet's, by default",
        "std": "ImageNet's, by default",
        "size": "the study's, by default",
    }
    assert (said.mean, said.std, said.resize, said.crop) == ((0.5, 0.25, 0.125), (0.3, 0.3, 0.3), 235, 224)
    assert said.origins == {
        "architecture": "config.json, which says resnet50",
        "mean": "config.json",
        "std": "--std; config.json says (0.5, 0.5, 0.25)",
        "size": "config.json",
    }


def test_the_manifest_and_the_output_say_where_everything_comes_from(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    state = golden.state_dict(RESNET) | {
        "fc.weight": np.ones((3, 2048), np.float32),
        "fc.bias": np.zeros(3, np.float32),
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(STATED))
    given = [str(tmp_path / "model.safetensors"), "--layout", RESNET, "--to", str(tmp_path / "to")]
    assert "has a head of 3 classes, not 1000: say --classes 3" in error_of(capsys, *given)
    assert not (tmp_path / "to").exists()
    assert main([*given, "--classes", "3"]) == 0
    out = capsys.readouterr().out
    for line in (
        "resnet50 of 3 classes from the layout timm-resnet50, 23,567,299 numbers",
        "architecture: config.json, which says resnet50",
        "epsilon 1e-05 of the normalisation layers",
        "mean 0.5 0.25 0.125 (config.json)",
        "resize 235, crop 224 (config.json); published with bicubic resizing, which is bilinear here",
        "tensors of model.safetensors: at the top",
    ):
        assert line in out
    loaded = zoo.load(tmp_path / "to")
    assert (loaded.resize, loaded.crop) == (235, 224)
    np.testing.assert_array_equal(loaded.mean, np.float32([0.5, 0.25, 0.125]))
    np.testing.assert_array_equal(loaded.std, np.float32([0.5, 0.5, 0.25]))
    manifest = checkpoint.read_manifest(tmp_path / "to")
    assert manifest is not None
    assert (manifest["architecture"], manifest["layout"], manifest["epsilon"]) == ("resnet50", RESNET, 1e-5)
    assert manifest["tensors"] == [{"file": "model.safetensors", "key": "", "left": []}]
    assert manifest["interpolation"] == "bicubic" and manifest["origins"]["mean"] == "config.json"
    kept = dict(manifest)
    for name in ("resize", "crop"):
        del manifest[name]
    (tmp_path / "to" / "manifest.json").write_text(json.dumps(manifest))
    older = zoo.load(tmp_path / "to")
    assert (older.resize, older.crop) == (256, 224)
    for change in (
        {"crop": 257, "resize": 256},
        {"crop": 224.5},
        {"mean": [0, 0, "x"]},
        {"std": [1e-40, 1, 1]},
        {"architecture": ["x"]},
        {"config": {"depth": 3}},
        {"config": 3},
    ):
        (tmp_path / "to" / "manifest.json").write_text(json.dumps(kept | change))
        with pytest.raises(checkpoint.CheckpointError, match=r"to: (no|in its manifest) .*"):
            zoo.load(tmp_path / "to")


def test_the_table_that_is_taken_and_those_that_are_left_are_named(tmp_path: Path) -> None:
    """timm would take the average."""
    plain, average = (b"}(" + files.text("module.a") + files.tensor(key, (2,)) + b"u" for key in "01")
    numbers = {key: np.full(2, float(key), np.float32) for key in "01"}
    program = files.table(state_dict=plain, state_dict_ema=average, epoch=files.number(3))
    path = files.write_zip(tmp_path / "x.pth", program, numbers)
    for envelope, expected, left in (
        (command.ANY_FILE, 0, "state_dict_ema"),
        (command.envelope("state_dict_ema", None), 1, "state_dict"),
    ):
        tensors, taken = command.read(path, envelope, print)
        assert tensors["a"].tolist() == [expected, expected] and taken.left == (left,)
        assert taken.key == {"state_dict": "state_dict_ema", "state_dict_ema": "state_dict"}[left]
    default = str(command.read(path, command.ANY_FILE, print)[1])
    assert default == (
        "tensors of x.pth: 'state_dict'; left there: 'state_dict_ema' (timm takes the average: --path state_dict_ema)"
    )


def test_the_config_of_a_repository_is_read(tmp_path: Path) -> None:
    """What was fetched before is not fetched again."""
    kept = tmp_path / "timm" / "resnetblur50.bt_in1k"
    kept.mkdir(parents=True)
    (kept / "model.safetensors").touch()
    (kept / "config.json").write_text(json.dumps(STATED | {"architecture": "resnetblur50"}))
    page = "https://huggingface.co/timm/resnetblur50.bt_in1k/resolve/main/model.safetensors?download=true"
    for what in ("timm/resnetblur50.bt_in1k", "hf://timm/resnetblur50.bt_in1k/model.safetensors", page):
        path, settings = command.resolve(what, tmp_path)
        assert (path, settings) == (kept / "model.safetensors", kept / "config.json")
        with pytest.raises(ConversionError, match="says 'resnetblur50'"):
            command.convert_file(path, RESNET, tmp_path / "to", False, print, settings=settings)
