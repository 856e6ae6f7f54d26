"""Resample position embeddings to other resolutions as DINO's published code does."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sslkit.errors import NotSupported

OFFSET = 0.1
"""What is added to the number of patches on each side before it becomes a scale."""


def resample_by_scale(positions: Tensor, stored: tuple[int, int], wanted: tuple[int, int], num_prefix: int) -> Tensor:
    """Return position embeddings for another grid of patches, by the rule of DINO (arXiv:2104.14294) in its code.

    Bicubic interpolation with a = -0.75 and without antialias, where patch i of n lies at (i + 1/2) N / (n + 0.1) - 1/2
    among the N stored ones of its side. timm takes N / n, and antialias where n < N.

    Args:
        positions: (1, num_prefix + N, F), the patches row by row.
        stored: rows and columns of the N patches.
        wanted: rows and columns; where they are those stored, ``positions`` are returned as they are.
        num_prefix: class and register tokens, whose embeddings stay.

    Returns:
        (1, num_prefix + rows * columns, F) in the dtype of ``positions``, computed in float32 or higher.
    """
    if wanted == stored:
        return positions
    grid = positions[:, num_prefix:].unflatten(1, stored).permute(0, 3, 1, 2)
    scale = tuple((n + OFFSET) / side for n, side in zip(wanted, stored, strict=True))
    precise = grid.to(torch.promote_types(grid.dtype, torch.float32))
    resampled = F.interpolate(precise, scale_factor=scale, mode="bicubic")
    return torch.cat([positions[:, :num_prefix], resampled.to(grid.dtype).flatten(2).mT], dim=1)


class ScaledPositions(VisionTransformer):
    """timm's VisionTransformer with positions resampled by DINO's rule; the weights and their names are the same."""

    pos_embed: nn.Parameter

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Add positions to patches (N, rows, columns, F), behind class and register tokens."""
        num_images, rows, columns, _ = x.shape
        positions = resample_by_scale(self.pos_embed, self.patch_embed.grid_size, (rows, columns), self._prefix)
        tokens = x.flatten(1, 2)
        if self.no_embed_class:
            tokens = tokens + positions
        before = [token for token in (self.cls_token, self.reg_token) if token is not None]
        tokens = torch.cat([*(token.expand(num_images, -1, -1) for token in before), tokens], dim=1)
        dropped: Tensor = self.pos_drop(tokens if self.no_embed_class else tokens + positions)
        return dropped

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Store positions for images of another size, as (height, width)."""
        positions, stored = self.pos_embed, self.patch_embed.grid_size
        super().set_input_size(img_size, patch_size)
        resampled = resample_by_scale(positions.detach(), stored, self.patch_embed.grid_size, self._prefix)
        self.pos_embed = nn.Parameter(resampled, positions.requires_grad)

    @property
    def _prefix(self) -> int:
        """Position embeddings that are not of patches."""
        return 0 if self.no_embed_class else int(self.num_prefix_tokens)


def use_scaled_positions(model: nn.Module, name: str) -> None:
    """Let a timm model resample its positions by DINO's rule from now on, in its copies and pickles too.

    Raises:
        NotSupported: it is no VisionTransformer of timm, or has no positions to resample.
    """
    if reason := _why_not(model):
        raise NotSupported(
            f"positions: dino: {name!r} {reason}. Choose a vit_* of timm (vit_small_patch16_224), or positions: timm; "
            "on the command line --method.backbone.positions timm"
        )
    # Another class rather than a method set on the instance, which a pickle would lose.
    model.__class__ = ScaledPositions


def _why_not(model: nn.Module) -> str | None:
    if type(model) is not VisionTransformer or model.pos_embed is None:
        return f"is a {type(model).__name__} without position embeddings of a plain ViT"
    return None if model.dynamic_img_size else "sees one size alone (dynamic_img_size: false): nothing is resampled"
