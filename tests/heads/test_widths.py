"""Widths that no layer has are refused with their head."""

import pytest
from advice import run

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


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (MLPHead(8, hidden_dim=1), "hidden_dim"),
        (MLPHead(8, embed_dim=1), "embed_dim"),
        (MLPHead(1), "hidden_dim"),
        (DINOHead(8, 64, hidden_dim=1, embed_dim=8), "hidden_dim"),
        (DINOHead(8, 64, hidden_dim=8, embed_dim=1), "embed_dim"),
        (SwAVHead(8, 64, hidden_dim=1, embed_dim=8), "hidden_dim"),
    ],
)
def test_a_layer_of_a_single_unit_is_told(head, name):
    (only,) = head.recommend(run())
    assert only.reason.startswith(f"a layer of {name} ")
    assert dict(only.changes) == {name: 64}
    assert "dimensional collapse" in only.leads_to


@pytest.mark.parametrize(
    "head",
    [
        MLPHead(8, hidden_dim=2, embed_dim=2),
        MLPHead(8, hidden_dim=1, embed_dim=8, num_layers=1),
        DINOHead(8, 64, hidden_dim=1, embed_dim=8, num_layers=1),
        DINOHead(8, 64, hidden_dim=8, embed_dim=1, num_layers=1, l2_bottleneck=False),
        SwAVHead(8, 64, hidden_dim=2, embed_dim=2),
    ],
)
def test_wider_ones_and_those_that_are_not_there_are_not(head):
    assert [each for each in head.recommend(run()) if "a layer of" in each.reason] == []
