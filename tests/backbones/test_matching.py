"""Weights that torch would convert silently, or that give other features in the same shapes, are refused."""

import pytest
import torch
from bad_weights import KINDS, SPRUNG, make

from sslkit.backbones.foreign import Weights
from sslkit.backbones.matching import check_dtypes, compare, match, take
from sslkit.backbones.start import read_weights
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError

VIT = {"name": "vit_tiny_patch16_224", "model_args": {"img_size": 32, "depth": 1}}


@pytest.mark.parametrize("kind", KINDS)
def test_no_backbone_starts_from_a_bad_file(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, said = make(kind, tmp_path)
    backbone = TimmBackbone(**VIT)
    with pytest.raises(SSLKitError) as raised:
        match(backbone, read_weights(str(file)))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / SPRUNG).exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_every_floating_point_dtype_is_taken(dtype):
    backbone = TimmBackbone(**VIT)
    tensors = {name: weight.to(dtype) for name, weight in backbone.named_weights().items()}
    take(backbone, match(backbone, Weights("mine", tensors)))
    assert all(torch.equal(weight.to(dtype), tensors[name]) for name, weight in backbone.named_weights().items())


def test_counters_may_have_any_dtype():
    own = {"bn.num_batches_tracked": torch.tensor(3), "weight": torch.ones(2)}
    check_dtypes({"bn.num_batches_tracked": torch.tensor(3.0), "elsewhere": torch.tensor([True])}, own, "mine")
    with pytest.raises(SSLKitError, match="mine holds weights of dtype int64, not of floating-point numbers: weight"):
        check_dtypes({"weight": torch.tensor([1, 2])}, own, "mine")


def test_what_differs_is_returned_by_what_it_is():
    backbone = TimmBackbone(**VIT)
    tensors = {
        **backbone.named_weights(),
        "norm.bias": torch.ones(3),
        "extra": torch.ones(1),
        "fc.weight": torch.ones(1),
    }
    del tensors["norm.weight"]
    found, wrong = compare(backbone, Weights("mine", tensors))
    assert len(found.taken) == len(backbone.named_weights()) - 2
    assert wrong == {"not in it": ["norm.weight"], "of another shape in it": ["norm.bias"], "in it alone": ["extra"]}


@pytest.mark.parametrize(("recorded", "refused"), [(None, False), (3, False), (6, True)])
def test_another_number_of_attention_heads_is_refused(recorded, refused):
    backbone = TimmBackbone(**VIT)
    weights = Weights("mine", dict(backbone.named_weights()), num_heads=recorded)
    if not refused:
        assert len(match(backbone, weights).taken) == len(weights.tensors)
        return
    with pytest.raises(SSLKitError, match=r"mine has 6 attention heads, the backbone 3.*model_args: \{num_heads: 6\}"):
        match(backbone, weights)
