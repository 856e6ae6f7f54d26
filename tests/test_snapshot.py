"""Tensors put back as they were, on a condition that stays on the device."""

import pytest
import torch

from sslkit.snapshot import TensorSnapshot


def test_tensors_are_put_back_in_place():
    tensors = [torch.randn(3, 5), torch.arange(4), torch.tensor(2.5, dtype=torch.float64)]
    before = [tensor.clone() for tensor in tensors]
    kept = TensorSnapshot(lambda: tensors)
    for tensor in tensors:
        tensor.add_(1)
    kept.restore()
    assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True))


@pytest.mark.parametrize("flags", [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
@pytest.mark.parametrize("waits", [True, False])
def test_tensors_are_put_back_where_a_flag_is_set(flags, waits, monkeypatch):
    """Both ways: by a condition that the host reads, and by one that stays on the device."""
    if not waits:
        monkeypatch.setattr("sslkit.snapshot.READ_AT_ONCE", ())
    tensor = torch.randn(7, 3)
    before, kept = tensor.clone(), TensorSnapshot(lambda: [tensor])
    tensor.mul_(torch.nan if any(flags) else 2)
    kept.restore_if(torch.tensor(flags))
    torch.testing.assert_close(tensor, before if any(flags) else 2 * before)


def test_another_number_of_tensors_is_no_match():
    tensors = [torch.ones(2)]
    kept = TensorSnapshot(lambda: tensors)
    tensors.append(torch.ones(3))
    with pytest.raises(ValueError, match="zip"):
        kept.restore()
