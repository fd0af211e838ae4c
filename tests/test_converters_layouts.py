"""Every layout of the zoo, with real key names, wrappers and decoys, down to the architecture's own names."""

import models_golden as golden
import numpy as np
import pytest
import zoo_layouts

from converters.convert import match_keys
from converters.envelopes import Envelope, merge, parse_second
from converters.errors import ConversionError
from converters.rules import find_layout
from oodjax import zoo

CASES = [
    pytest.param(entry, write, id=f"{entry.id}-{i}")
    for entry in zoo.checkpoints()
    for i, write in enumerate(zoo_layouts.layouts(entry.id))
]


def opened(entry: zoo.Checkpoint, contents: list) -> dict:
    envelopes = [Envelope.parse(entry.state_dict_path, entry.key_rewrites)]
    if entry.second_file:
        envelopes.append(parse_second(entry.second_file)[1])
    found: dict = {}
    for envelope, content in zip(envelopes, contents, strict=True):
        found = merge(found, envelope.open(content, entry.id))
    return found


@pytest.mark.parametrize(("entry", "write"), CASES)
def test_the_envelope_finds_every_tensor_and_nothing_else(entry: zoo.Checkpoint, write) -> None:
    arch = entry.layout
    state = golden.empty(arch)
    found = opened(entry, write(state))
    assert found.keys() == state.keys()
    assert all(found[key] is state[key] for key in state)
    rules = find_layout(arch)
    targets = {rule.match(key) for key in state for rule in rules.rules} - {None}
    assert match_keys(found, rules, dict.fromkeys(targets, ()))[1] == []


def test_counters_may_be_absent() -> None:
    entry = zoo.get("cutmix")
    state = {key: value for key, value in golden.empty("torchvision-resnet50").items() if "num_batches" not in key}
    found = opened(entry, zoo_layouts.training(state))
    rules = find_layout("torchvision-resnet50")
    targets = {rule.match(key) for key in state for rule in rules.rules} - {None}
    assert match_keys(found, rules, dict.fromkeys(targets, ()))[1] == []


@pytest.mark.parametrize(
    ("path", "rewrites", "content", "message"),
    [
        ("model", "", {"state_dict": {}, "epoch": 1}, r"no 'model' in the file; it holds 'state_dict', 'epoch'"),
        ("", "", {}, "found an empty one"),
        ("", "", [1], "found list"),
        ("a", "", {"a": 3}, "found int"),
        ("a", "", {"a": np.zeros(2)}, "found ndarray"),
        ("", "", {"a": np.zeros(1), "epoch": 3}, r"not a plain tensor: epoch \(int\)"),
        ("", "", {1: np.zeros(1)}, "not a name: int"),
        ("", "strip:module.", {"a": np.zeros(1)}, "no key starts with 'module.'"),
        ("", "strip:m.", {"m.a": np.zeros(1), "a": np.zeros(1)}, r"two keys become a \(m.a and a\)"),
    ],
)
def test_what_does_not_fit_is_refused(path: str, rewrites: str, content: object, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        Envelope.parse(path, rewrites).open(content, "file")


@pytest.mark.parametrize("text", ["cut:a", "strip:", "rename:a", "strip:a=b", "rename"])
def test_a_rewrite_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read the rewrite"):
        Envelope.parse("", text)


def test_rewrites_apply_in_order() -> None:
    envelope = Envelope.parse("", "rename:.x.=.y.;regex:net.{A}.b.{B}.=layer{B}.{A}.;drop:skip;rename:y=z")
    names = ["net.1.b.22.x.w", "a.skip.b", "y", "ay", "net.1.b.c.w"]
    found = envelope.rename(dict.fromkeys(names), "keys")
    assert list(found) == ["layer22.1.y.w", "z", "ay", "net.1.b.c.w"]


def test_a_second_file_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="expected: URL"):
        parse_second("https://example.org/x.pth")
