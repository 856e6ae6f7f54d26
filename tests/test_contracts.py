"""What the contracts refuse by themselves."""

import pytest
import torch
from torch import nn

from sslkit import Backbone, Features


class Stack(Backbone):
    embed_dim = 3

    def __init__(self, name):
        super().__init__()
        setattr(self, name, nn.Linear(3, 3))

    def forward(self, images, mask=None):
        return Features(self.blocks(images.mean((2, 3))))


@pytest.mark.parametrize("name", ["layers", "attention", "save"])
def test_a_module_cannot_hide_behind_a_method_of_backbone(name):
    with pytest.raises(AttributeError, match=rf"Stack\.{name}.*choose another"):
        Stack(name)


def test_other_names_are_free():
    assert Stack("blocks")(torch.ones(2, 3, 4, 4)).cls.shape == (2, 3)
