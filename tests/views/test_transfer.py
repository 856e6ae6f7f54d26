"""Numbers of a batch in one row and back."""

from typing import NamedTuple

import pytest
import torch

from sslkit.views.transfer import carry, pack, unpack


class Plan(NamedTuple):
    rows: torch.Tensor
    flips: torch.Tensor | None
    name: str


def tensors():
    return [
        torch.arange(7) * 2**40,
        torch.rand(3, 5) > 0.5,
        torch.randn(2, 1, 4, dtype=torch.float64),
        torch.empty(0, 3, dtype=torch.long),
        torch.randn(()),
    ]


def test_what_is_packed_comes_back_in_its_shape_and_dtype():
    ours = tensors()
    for found, expected in zip(unpack(pack(ours, torch.float64), ours), ours, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)


def test_a_device_without_float64_keeps_what_float32_holds():
    ours = [torch.randn(4, dtype=torch.float64), torch.arange(2**24 - 3, 2**24), torch.tensor([True, False])]
    found = list(unpack(pack(ours, torch.float32), ours))
    assert [each.dtype for each in found] == [torch.float32, torch.int64, torch.bool]
    torch.testing.assert_close(found[0].double(), ours[0], rtol=1e-6, atol=0)
    assert torch.equal(found[1], ours[1])
    assert torch.equal(found[2], ours[2])


def test_on_the_cpu_nothing_moves():
    tree = [Plan(torch.ones(2), None, "a"), []]
    assert carry(tree, torch.device("cpu")) is tree


def test_a_tree_keeps_its_form():
    tree = [Plan(torch.arange(3), None, "global"), [Plan(torch.ones(2, 2), torch.tensor([True]), "local")]]
    found = carry(tree, torch.device("meta"))
    assert found[0].rows.is_meta
    assert found[0].rows.dtype == torch.int64
    assert found[0][1:] == (None, "global")
    assert found[1][0].flips.dtype == torch.bool
    assert found[1][0].rows.shape == (2, 2)
    assert found[1][0].name == "local"
    assert carry(["nothing"], torch.device("meta")) == ["nothing"]


@pytest.mark.gpu
def test_a_gpu_gets_the_same_numbers():
    ours = tensors()
    for found, expected in zip(carry(ours, torch.device("cuda")), ours, strict=True):
        assert found.is_cuda
        assert torch.equal(found.cpu(), expected)
