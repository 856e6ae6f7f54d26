"""Projection head of DINO."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from sslkit.contracts import Head
from sslkit.errors import RecipeError
from sslkit.heads.prototype_advice import few_images, images_a_prototype
from sslkit.heads.weight_norm import WeightNormPrototypes
from sslkit.heads.widths import check_widths, recommend_widths
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import check_range
from sslkit.types import at_least_float32

Activation = Literal["gelu", "relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


COLLAPSES = 2
"""Projector layers from which on DINO without l2 bottleneck collapsed (appendix C)."""


class DINOHead(Head):
    """MLP with an l2 bottleneck and weight-normalised prototypes. DINO §3.1 and appendix C (arXiv:2104.14294).

        projector = Linear, [BatchNorm], activation, ...,
                    Linear(hidden_dim, embed_dim): num_layers linears
        embedding = projector(features) / norm            normalised by `Branch`
        logits    = embedding @ (weight_g * weight_v / norm(weight_v)).T, (N, K)

    Linear layers of the MLP are initialised from a truncated normal distribution of std 0.02, with zero bias;
    ``weight_v`` as torch's ``nn.Linear``, ``weight_g`` with 1.

    Without the l2 bottleneck (appendix C, "without l2") the projector is ``num_layers`` times Linear, [BatchNorm],
    activation of width ``hidden_dim``, the embedding is not normalised, and the prototypes are a linear layer without
    bias, initialised like the MLP. The paper does not specify bias and weight norm of these prototypes; leaving both
    out is our choice. The paper's "number of linear layers" includes the prototypes: it is ``num_layers + 1``.

    Args:
        in_dim: F, the backbone's ``embed_dim``.
        num_prototypes: K (65536 in the paper); null for a projector without prototypes.
        hidden_dim: width of the hidden layers.
        embed_dim: D of the bottleneck; without bottleneck D is ``hidden_dim``, or F with no layers.
        num_layers: linear layers of the projector (3 in the paper); 0 is the identity and needs
            ``l2_bottleneck=False``.
        activation: between the layers (gelu for a ViT, see the table in appendix C).
        batch_norm: whether a BatchNorm follows each hidden linear layer (not in the paper's head, but in its BYOL
            row).
        l2_bottleneck: whether the projector ends in the l2-normalised bottleneck.
        freeze_prototype_norm: whether ``weight_g`` stays 1. The published code calls a trainable one safe for ViT-S
            only. Its shape is (K, 1), two-dimensional, so weight decay acts on it, as in the published code.

    Raises:
        RecipeError: ``activation`` is unknown, a width is below 1 or ``num_layers`` is too small.
    """

    projector: nn.Sequential

    def __init__(
        self,
        in_dim: int,
        num_prototypes: int | None = 65536,
        hidden_dim: int = 2048,
        embed_dim: int = 256,
        num_layers: int = 3,
        activation: Activation = "gelu",
        batch_norm: bool = False,
        l2_bottleneck: bool = True,
        freeze_prototype_norm: bool = True,
    ) -> None:
        super().__init__()
        check_widths(
            "DINOHead", in_dim=in_dim, num_prototypes=num_prototypes, hidden_dim=hidden_dim, embed_dim=embed_dim
        )
        if activation not in ACTIVATIONS:
            raise RecipeError(f"DINOHead: activation is one of {', '.join(ACTIVATIONS)}, not {activation!r}")
        check_range("DINOHead", "num_layers", num_layers, "[0, 100]")
        if num_layers < int(l2_bottleneck):
            raise RecipeError(
                f"DINOHead: num_layers={num_layers} leaves no layer for the bottleneck: "
                "use 1 or more, or l2_bottleneck=False with 0 or more"
            )
        num_hidden = num_layers - int(l2_bottleneck)
        widths = [in_dim] + [hidden_dim] * num_hidden
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += _hidden(width, next_width, ACTIVATIONS[activation], batch_norm)
        if l2_bottleneck:
            layers.append(nn.Linear(widths[-1], embed_dim))
        self.projector = nn.Sequential(*layers)
        # The projector alone: weight-normalised prototypes keep torch's initialisation, as in the published code.
        self.projector.apply(_initialise)
        self.in_dim = in_dim
        self.embed_dim = embed_dim if l2_bottleneck else widths[-1]
        self.num_prototypes = num_prototypes
        self.normalize = l2_bottleneck
        # Assigned in every case rather than a class attribute, which would hide the registered module of its name.
        self.prototypes: nn.Module | None
        if num_prototypes is None:
            self.prototypes = None
        elif l2_bottleneck:
            self.prototypes = WeightNormPrototypes(embed_dim, num_prototypes, freeze_prototype_norm)
        else:
            self.prototypes = LinearPrototypes(self.embed_dim, num_prototypes)
        self.num_layers = num_layers
        self.widths = {"embed_dim": embed_dim} if l2_bottleneck else {}
        self.widths |= {"hidden_dim": hidden_dim} if num_hidden else {}

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        return images_a_prototype(self.num_prototypes, context)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        yield from few_images(self.num_prototypes, context)
        yield from recommend_widths(**self.widths)
        if not self.normalize and self.num_prototypes and self.num_layers >= COLLAPSES:
            yield Recommendation(
                f"without the l2 bottleneck, {self.num_layers} layers below the prototypes collapse: k-NN 0.1 %",
                "DINO appendix C",
                {"l2_bottleneck": True},
                leads_to=("one-dimension collapse", "uniform collapse", "not learning"),
            )


class LinearPrototypes(nn.Linear):
    """Prototypes as a linear layer without bias and weight norm, from embeddings (N, D) to logits (N, K)."""

    def __init__(self, embed_dim: int, num_prototypes: int) -> None:
        super().__init__(embed_dim, num_prototypes, bias=False)
        _initialise(self)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits (..., K), float32 or wider, of embeddings (..., D)."""
        return at_least_float32(super().forward(embedding))


def _hidden(width: int, next_width: int, activation: type[nn.Module], batch_norm: bool) -> list[nn.Module]:
    norm = [nn.BatchNorm1d(next_width)] if batch_norm else []
    return [nn.Linear(width, next_width), *norm, activation()]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
