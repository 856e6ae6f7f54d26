"""Resample weights of a timm model that come from another resolution, patch size or number of channels."""

import math
from typing import Any

from timm.layers import PatchEmbed, resample_abs_pos_embed, resample_patch_embed
from timm.models._manipulate import adapt_input_conv
from torch import Tensor, nn

from sslkit.backbones.scaled_positions import ScaledPositions, resample_by_scale


def resample(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """Return a weight resampled to the shape that it has in ``model``, or as it is where no rule applies.

    - A first convolution of 3 channels becomes one of n: for 1 the kernels are summed; else they are repeated,
      R G B R G ..., and multiplied by 3 / n, which keeps the scale of the output.
    - Patch kernels take the least-squares solution for a resized image (FlexiViT, arXiv:2212.08013, section 3.4).
    - Position embeddings are resized by the model's own rule for other resolutions: timm's, bicubic interpolation with
      antialias, or that of `sslkit.backbones.scaled_positions`.

    Args:
        model: a timm model.
        name: name of the weight in the model.
        weight: the weight of another model.
    """
    shape = model.state_dict()[name].shape
    if weight.shape == shape:
        return weight
    if weight.ndim == 4 and len(shape) == 4 and weight.shape[0] == shape[0] and weight.shape[1] == 3:
        weight = adapt_input_conv(shape[1], weight)
    embed: Any = getattr(model, "patch_embed", None)
    if not isinstance(embed, PatchEmbed):
        return weight
    if name == "patch_embed.proj.weight" and weight.shape[:2] == shape[:2]:
        return resample_patch_embed(weight, list(shape[-2:]))
    if name == "pos_embed" and weight.shape[-1] == shape[-1]:
        return _resample_positions(model, weight, embed.grid_size, shape[1])
    return weight


def _resample_positions(model: nn.Module, weight: Tensor, grid: tuple[int, int], num_tokens: int) -> Tensor:
    """Resize (1, tokens, F) to ``grid``; a grid that was not square stays, since its sides are not stored."""
    prefix = num_tokens - math.prod(grid)
    stored = square_grid(weight, prefix)
    if stored is None:
        return weight
    if isinstance(model, ScaledPositions):
        return resample_by_scale(weight, stored, grid, prefix)
    return resample_abs_pos_embed(weight, list(grid), num_prefix_tokens=prefix)


def square_grid(positions: Tensor, prefix: int) -> tuple[int, int] | None:
    """Return rows and columns of the patches of position embeddings; None if their number is no square.

    Args:
        positions: (1, prefix + patches, F).
        prefix: number of class and register tokens among them.
    """
    patches = positions.shape[1] - prefix
    side = math.isqrt(max(patches, 0))
    return (side, side) if patches > 0 and side**2 == patches else None
