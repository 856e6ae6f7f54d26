"""Weight-normalised prototypes that do not materialise the normalised weight."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslkit.types import at_least_float32


class WeightNormPrototypes(nn.Module):
    """Weight-normalised linear layer without bias, from embeddings (N, D) to logits (N, K).

    Weight normalisation, arXiv:1602.07868, of each row: ``weight = weight_g * weight_v / norm(weight_v)``. Not
    ``torch.nn.utils.parametrizations.weight_norm``, which writes the K x D weight and takes more time and memory.

    Args:
        embed_dim: D.
        num_prototypes: K.
        freeze_norm: whether ``weight_g`` stays 1.
    """

    def __init__(self, embed_dim: int, num_prototypes: int, freeze_norm: bool = True) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(num_prototypes, 1), requires_grad=not freeze_norm)
        self.weight_v = nn.Parameter(nn.Linear(embed_dim, num_prototypes, bias=False).weight.detach())

    def forward(self, embedding: Tensor) -> Tensor:
        """Return logits (..., K), float32 or wider, of embeddings (..., D)."""
        return at_least_float32(_ScaledScores.apply(embedding, self.weight_v, self.weight_g))


class _ScaledScores(torch.autograd.Function):
    """embedding @ weight_v.T * (weight_g / norm(weight_v)).

    Of K x D numbers only the gradient of weight_v is written: with K = 65536 the normalised weight and its gradient
    would be the largest temporary tensors of a DINO step. The gradient of row k of weight_v is

        scale_k * (grad_k @ embedding) - weight_v_k * (grad_k . scores_k) / norm_k ** 2

    The gradient of weight_g_k would be (grad_k . scores_k) / weight_g_k, which is undefined at 0. So the scores before
    scaling are computed again where weight_g is trainable.
    """

    @staticmethod
    def forward(ctx: Any, embedding: Tensor, v: Tensor, g: Tensor) -> Tensor:
        device = embedding.device.type
        # Autocast's own cast, made here since the backward pass, which runs outside autocast, needs its result too.
        narrow = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else v.dtype
        norm = torch.linalg.vector_norm(v, dim=1)
        # The K norms scale the scores rather than the K x D weight, which would be written once more.
        scale = g.squeeze(1) / norm
        narrow_embedding = embedding.to(narrow)
        scores = at_least_float32(F.linear(narrow_embedding, v.to(narrow))).mul_(scale)
        ctx.save_for_backward(narrow_embedding, v, scores, norm, scale)
        ctx.input_dtype = embedding.dtype
        return scores

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        embedding, v, scores, norm, scale = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        scaled = (rows * scale).to(embedding.dtype)
        # grad_k . scores_k for each prototype, (K,), the component of the gradient along weight_v.
        along = (rows * scores.flatten(0, -2)).sum(0)
        grad_v = grad_g = grad_embedding = None
        if ctx.needs_input_grad[0]:
            grad_embedding = (scaled @ v.to(embedding.dtype)).view(embedding.shape).to(ctx.input_dtype)
        if ctx.needs_input_grad[1]:
            grad_v = (scaled.T @ embedding.flatten(0, -2)).to(v.dtype)
            grad_v.addcmul_(v, (along / norm.square()).unsqueeze(1), value=-1)
        if ctx.needs_input_grad[2]:
            unscaled = at_least_float32(F.linear(embedding, v.to(embedding.dtype))).flatten(0, -2)
            grad_g = ((rows * unscaled).sum(0) / norm).unsqueeze(1)
        return grad_embedding, grad_v, grad_g
