"""Resample position embeddings to other resolutions as DINO's published code does."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from sslkit.errors import NotSupported

OFFSET = 0.1
"""Added by DINO's code to the number of patches on each side before the division that gives the scale."""


def resample_by_scale(positions: Tensor, stored: tuple[int, int], wanted: tuple[int, int], num_prefix: int) -> Tensor:
    """Return position embeddings for another grid of patches, by the rule of DINO's code (arXiv:2104.14294).

    Bicubic interpolation with a = -0.75 and without antialias, where patch i of n lies at (i + 1/2) N / (n + 0.1) - 1/2
    among the N stored ones of its side. timm scales by N / n instead, with antialias where n < N.

    Args:
        positions: (1, num_prefix + N, F), the patches row by row.
        stored: rows and columns of the N patches.
        wanted: rows and columns of the n patches; if equal to ``stored``, ``positions`` are returned as they are.
        num_prefix: number of class and register tokens, whose embeddings stay as they are.

    Returns:
        (1, num_prefix + rows * columns, F) in the dtype of ``positions``, computed in float32 or higher.
    """
    if wanted == stored:
        return positions
    grid = positions[:, num_prefix:].unflatten(1, stored).permute(0, 3, 1, 2)
    scale = tuple((n + OFFSET) / side for n, side in zip(wanted, stored, strict=True))
    precise = grid.to(torch.promote_types(grid.dtype, torch.float32))
    # By scale_factor rather than size, since torch then samples at exactly this scale, as in DINO's code.
    resampled = F.interpolate(precise, scale_factor=scale, mode="bicubic")
    return torch.cat([positions[:, :num_prefix], resampled.to(grid.dtype).flatten(2).mT], dim=1)


class ScaledPositions(VisionTransformer):
    """timm's VisionTransformer with positions resampled by DINO's rule; the weights and their names are the same."""

    pos_embed: nn.Parameter

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Return tokens (N, T, F): class and register tokens and patches (N, rows, columns, F), positions added."""
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
        """Resample the stored positions for images of another size, (height, width) in pixels."""
        # timm resamples by its own rule, so its result is replaced by one of the positions before.
        positions, stored = self.pos_embed, self.patch_embed.grid_size
        super().set_input_size(img_size, patch_size)
        resampled = resample_by_scale(positions.detach(), stored, self.patch_embed.grid_size, self._prefix)
        self.pos_embed = nn.Parameter(resampled, positions.requires_grad)

    @property
    def _prefix(self) -> int:
        """Number of position embeddings that are not of patches."""
        return 0 if self.no_embed_class else int(self.num_prefix_tokens)


def use_scaled_positions(model: nn.Module, name: str) -> None:
    """Make a timm model resample its positions by DINO's rule, also in its copies and pickles.

    Args:
        model: changed in place.
        name: name of the model for the error message.

    Raises:
        NotSupported: the model is not a VisionTransformer of timm, or has no positions to resample.
    """
    if reason := _why_not(model):
        raise NotSupported(
            f"positions: dino: {name!r} {reason}. Choose a vit_* of timm (vit_small_patch16_224), or positions: timm; "
            "on the command line --method.backbone.positions timm"
        )
    # Another class rather than a method on the instance, which a pickle would lose, or a patch of timm, which would
    # change every model in the process.
    model.__class__ = ScaledPositions


def _why_not(model: nn.Module) -> str | None:
    if type(model) is not VisionTransformer or model.pos_embed is None:
        return f"is a {type(model).__name__} without position embeddings of a plain ViT"
    return None if model.dynamic_img_size else "takes one size only (dynamic_img_size: false): nothing is resampled"
