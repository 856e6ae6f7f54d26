"""The largest scores, in a stable order."""

import pytest
import torch

from sslkit.evaluators.nearest import largest_first


@pytest.mark.parametrize("k", [1, 4, 9])
def test_largest_first_is_a_stable_sort(k):
    scores = torch.randint(5, (50, 9), generator=torch.Generator().manual_seed(k)).float()
    assert torch.equal(largest_first(scores, k), scores.sort(dim=1, descending=True, stable=True).indices[:, :k])
