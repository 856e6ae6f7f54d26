"""One network of a method: backbone -> projector -> [predictor] -> l2 -> [prototypes]."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslkit.checks.outputs import check_features, check_rows
from sslkit.contracts import Backbone, Head, Predictor
from sslkit.errors import ComponentError, UnknownName
from sslkit.method.fit import check_contracts, check_size
from sslkit.types import Projection, Views, at_least_float32


class Branch(nn.Module):
    """A student or teacher network, from images to embeddings and logits.

    The predictor sits before the l2 norm, as BYOL's, which takes the un-normalised projection (arXiv:2006.07733,
    §3.1). For DINO with a predictor (arXiv:2104.14294, table 7 row 6) the paper does not say the place; this is
    our choice.

    Args:
        backbone: images to features.
        head: features to embeddings and, where it has prototypes, to logits.
        predictor: the student's alone.
        separate_views: whether each view passes the networks by itself, so that a batch norm takes its statistics from
            one view, as the published code of BYOL and MoCo does.

    Raises:
        ComponentError: the backbone is another module, or a part does not keep to its contract.
        RecipeError: head or predictor was built for another width than it would be given.
    """

    def __init__(
        self, backbone: Backbone, head: Head, predictor: Predictor | None = None, *, separate_views: bool = False
    ) -> None:
        super().__init__()
        # Not isinstance: what torch.compile returns is no Backbone, but hands on what one has.
        if not hasattr(backbone, "embed_dim"):
            raise ComponentError(
                "Branch takes a sslkit.Backbone, which answers with Features, not a "
                f"{type(backbone).__name__}; a subclass of Backbone that holds it will do"
            )
        check_contracts(backbone=backbone, head=head, predictor=predictor)
        check_size("head", head, "in_dim", backbone, "embed_dim")
        check_size("predictor", predictor, "dim", head, "embed_dim")
        self.backbone = backbone
        self.head = head
        self.predictor = predictor
        self.separate_views = separate_views

    def forward(self, views: Views, predict: bool = True) -> Projection:
        """See every view: one backbone pass a resolution, then the head once on all of them; or each view by itself.

        Args:
            views: the input; outputs are in the order of ``views.view_ids``.
            predict: whether the predictor, if there is one, is applied.
        """
        # One pass for each resolution, then the head once on all views, as DINO's and SwAV's published code.
        features = torch.cat([self._features(images) for images in self._passes(views)])
        projection = prediction = self._run(self.head.projector, features, views)
        if predict and self.predictor is not None:
            prediction = self._run(self.predictor, projection, views)
        embedding, logits = self._embed(prediction)
        shape = (len(views.view_ids), views.batch_size, -1)
        return Projection(
            features.view(shape),
            projection.view(shape),
            embedding.view(shape),
            None if logits is None else logits.view(shape),
            views.view_ids,
            None if logits is None else self.score,
        )

    def _features(self, images: Tensor) -> Tensor:
        return check_features(self.backbone, self.backbone(images), len(images), self.backbone.embed_dim).cls

    def _passes(self, views: Views) -> Iterator[Tensor]:
        for group in views.groups:
            yield from group.images if self.separate_views else (group.images.flatten(0, 1),)

    def _run(self, part: nn.Module, rows: Tensor, views: Views) -> Tensor:
        inputs = rows.split(views.batch_size) if self.separate_views else (rows,)
        outputs = [part(each) for each in inputs]
        for given, output in zip(inputs, outputs):
            self._check(part, output, given)
        return torch.cat(outputs) if self.separate_views else outputs[0]

    def _check(self, part: nn.Module, rows: object, given: Tensor) -> None:
        owner, name = (self.head, "projector") if part is self.head.projector else (part, "forward")
        check_rows(owner, name, rows, len(given), self.head.embed_dim, "embed_dim of the head")

    def _embed(self, prediction: Tensor) -> tuple[Tensor, Tensor | None]:
        embedding = at_least_float32(prediction)
        if self.head.normalize:
            embedding = F.normalize(embedding, dim=-1)
        if self.head.prototypes is None:
            return embedding, None
        return embedding, self._logits(embedding)

    @torch.no_grad()
    def score(self, embeddings: Tensor) -> Tensor:
        """Score (..., D) embeddings with the current prototypes, (..., K), without gradient."""
        return self._logits(embeddings.flatten(0, -2)).view(*embeddings.shape[:-1], -1)

    def _logits(self, embeddings: Tensor) -> Tensor:
        """Score (N, D) embeddings in float32 or wider, also in mixed precision.

        Temperatures of a few hundredths and Sinkhorn's epsilon multiply a rounded cosine's error: 0.004 of bf16 is 0.1
        in the exponent at 0.04.
        """
        assert self.head.prototypes is not None
        with torch.autocast(embeddings.device.type, enabled=False):
            logits = self.head.prototypes(at_least_float32(embeddings))
        check_rows(self.head, "prototypes", logits, len(embeddings), self.head.num_prototypes, "num_prototypes")
        return at_least_float32(logits)

    @torch.no_grad()
    def as_targets(self, outputs: Projection) -> Projection:
        """Return the outputs of this branch without its predictor and without gradient, given those with them."""
        if self.predictor is None:
            return outputs.detach()
        shape = outputs.projection.shape
        embedding, logits = self._embed(outputs.projection.flatten(0, 1))
        return Projection(
            outputs.features.detach(),
            outputs.projection.detach(),
            embedding.view(shape),
            None if logits is None else logits.view(*shape[:2], -1),
            outputs.view_ids,
            outputs.score,
        )

    def parts(self) -> dict[str, nn.Module]:
        """Return the parts that a recipe can freeze, by name."""
        parts = {
            "backbone": self.backbone,
            "projector": self.head.projector,
            "predictor": self.predictor,
            "prototypes": self.head.prototypes,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def part(self, name: str) -> nn.Module:
        """Return one of the parts.

        Raises:
            UnknownName: this branch has no such part.
        """
        parts = self.parts()
        if name not in parts:
            raise UnknownName("part of the student", name, parts, where="optimization.freeze")
        return parts[name]

    def as_teacher(self) -> "Branch":
        """Return a copy that follows: no predictor, no gradient, no dropout, batch norm in training mode."""
        backbone, head = copy.deepcopy((self.backbone, self.head))
        # Copied together, so that modules shared by both stay shared.
        teacher = Branch(backbone, head, separate_views=self.separate_views).requires_grad_(False)
        for module, rate in drop_rates(teacher):
            setattr(module, rate, 0.0)
        # In train mode its batch norms use the statistics of the batch, as the published codes do.
        return teacher.train()


def drop_rates(network: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield each layer that drops units, paths, blocks or patches, and how torch, torchvision or timm name its rate."""
    for module in network.modules():
        name = type(module).__name__
        if "Drop" in name or name == "StochasticDepth":
            yield from ((module, rate) for rate in ("p", "prob", "drop_prob") if hasattr(module, rate))
        elif isinstance(module, nn.MultiheadAttention):
            yield module, "dropout"
