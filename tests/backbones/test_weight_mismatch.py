"""Where weights and a backbone differ is said with the shortest override that would take them."""

import pytest
import torch

from sslkit.backbones.foreign import Weights
from sslkit.backbones.weight_mismatch import MOST, beyond, describe_mismatch, is_below

OWN = ["conv.weight", "conv.bias", "blocks.0.weight", "blocks.1.weight", "blocks.10.weight"]


def message(taken, wrong, partial=()):
    tensors = {name: torch.zeros(()) for name in ["fc.weight", "fc.bias", *taken]}
    weights = Weights(source="run/teacher", tensors=tensors)
    return describe_mismatch(weights, OWN, taken, wrong, partial)


@pytest.mark.parametrize(
    ("name", "begin", "below"),
    [("a.b", "a", True), ("a", "a", True), ("ab", "a", False), ("a", "a.b", False), ("a.b.c", "a.b", True)],
)
def test_names_are_below_whole_words(name, begin, below):
    assert is_below(name, begin) == below


def test_what_lies_below_nothing_that_is_allowed():
    assert beyond(OWN, ["blocks.1", "conv"]) == ["blocks.0.weight", "blocks.10.weight"]
    assert beyond(OWN, []) == OWN


def test_the_override_is_the_shortest_that_spares_what_fits():
    text = message(["conv.weight", "blocks.0.weight"], {"missing": ["conv.bias", "blocks.1.weight"], "other": []})
    assert "run/teacher is not this backbone; 2 of 5 tensors fit." in text
    assert "  missing: conv.bias, blocks.1.weight" in text
    assert "other" not in text
    assert text.endswith("--method.init_from.partial '[conv.bias, blocks.1]'")
    text = message(["conv.weight", "conv.bias"], {"missing": ["blocks.0.weight", "blocks.1.weight"]}, ["norm"])
    assert text.endswith("--method.init_from.partial '[norm, blocks]'")


def test_another_network_is_called_so():
    assert message([], {}).startswith("run/teacher has no weight of this backbone. Is it another network?")
    assert "Its names begin with fc; those of method.backbone with conv, blocks" in message([], {})
    wrong = {"left over": [f"part{i}.weight" for i in range(MOST + 1)]}
    assert message(["conv.weight"], wrong).endswith("It seems to be another network: change method.backbone to it")
