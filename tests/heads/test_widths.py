"""Widths that no layer has are refused with their head."""

import pytest

from sslkit.errors import RecipeError
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor
from sslkit.heads.swav_head import SwAVHead


@pytest.mark.parametrize(
    ("head", "width"),
    [
        *((DINOHead, width) for width in ("in_dim", "num_prototypes", "hidden_dim", "embed_dim")),
        *((SwAVHead, width) for width in ("in_dim", "num_prototypes", "hidden_dim", "embed_dim")),
        *((MLPHead, width) for width in ("in_dim", "hidden_dim", "embed_dim", "num_layers")),
        *((MLPPredictor, width) for width in ("dim", "hidden_dim")),
    ],
)
@pytest.mark.parametrize("number", [0, -3])
def test_widths_below_1_are_refused(head, width, number):
    first = "dim" if head is MLPPredictor else "in_dim"
    with pytest.raises(RecipeError, match=f"^{head.__name__}: {width} is at least 1, not {number}$"):
        head(**{first: 4, width: number})
