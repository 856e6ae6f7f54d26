"""Raw pixels as features, the baseline of every learned backbone."""

import json
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, RecipeError, UnknownName
from sslkit.schedules import check_range
from sslkit.types import Features, Preprocessing

Variant = Literal["plain", "centered", "gray-centered"]


class RawPixels(Backbone):
    """The image itself as its feature vector; it has no parameters.

    A side longer than ``size`` is first reduced to ``size`` by adaptive average pooling, each side on its own, so that
    a 224-px image costs as much as a 32-px one. F then is C x 32 x 32 by default, or 32 x 32 for gray.

    Args:
        variant: ``plain``; ``centered``, minus the mean over all pixels and channels of each image (stronger on
            photographs than minus the mean of each channel); ``gray-centered``, the mean over channels minus its mean
            over pixels.
        in_chans: number of channels of the images.
        size: longest side in pixels that is not reduced.

    Raises:
        UnknownName: there is no such variant.
        ValueError: ``in_chans`` or ``size`` is out of range.
    """

    VARIANTS: ClassVar[tuple[Variant, ...]] = ("plain", "centered", "gray-centered")

    def __init__(self, variant: Variant = "plain", in_chans: int = 3, size: int = 32) -> None:
        super().__init__()
        if variant not in self.VARIANTS:
            raise UnknownName("variant of raw pixels", variant, self.VARIANTS)
        check_range("RawPixels", "in_chans", in_chans, "[1, inf)")
        check_range("RawPixels", "size", size, "[1, 1000]")
        self.variant, self.in_chans, self.size = variant, in_chans, size
        self.embed_dim = size * size * (1 if variant == "gray-centered" else in_chans)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Flatten images (N, C, H, W) to (N, F); smaller images than ``size`` give a shorter F.

        Raises:
            NotSupported: a mask was given.
            RecipeError: the images have another number of channels.
        """
        if mask is not None:
            raise NotSupported("RawPixels has no patches to hide: leave mask out")
        if images.shape[1] != self.in_chans:
            raise RecipeError(f"RawPixels was built for in_chans={self.in_chans}, not {images.shape[1]}")
        pixels = F.adaptive_avg_pool2d(images, (min(images.shape[-2], self.size), min(images.shape[-1], self.size)))
        if self.variant == "gray-centered":
            pixels = pixels.mean(1, keepdim=True)
        if self.variant != "plain":
            pixels = pixels - pixels.mean((1, 2, 3), keepdim=True)
        return Features(pixels.flatten(1))

    def save(self, folder: Path, preprocessing: Preprocessing | None = None) -> None:
        """Write config.json; there are no weights."""
        folder.mkdir(parents=True, exist_ok=True)
        arguments = {"variant": self.variant, "in_chans": self.in_chans, "size": self.size}
        config = {"sslkit": {"backbone": type(self).__name__, "arguments": arguments}}
        (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "RawPixels":
        """Load what ``save`` wrote."""
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        return cls(**config["sslkit"]["arguments"])
