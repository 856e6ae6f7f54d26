"""The row of a step is plain numbers."""

import torch

from sslkit.training.metrics_row import as_numbers


def test_numbers_are_plain():
    assert as_numbers({"a": torch.tensor([0.5]), "b": 2, "c": torch.tensor(3)}) == {"a": 0.5, "b": 2.0, "c": 3.0}
