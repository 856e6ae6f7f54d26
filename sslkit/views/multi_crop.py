"""Multi-crop: a few global views and many local ones of each image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslkit.contracts import ViewMaker
from sslkit.errors import RecipeError, UnknownName
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, Sample, Views
from sslkit.views.appearance import Appearance, ColorJitter
from sslkit.views.checks import check_at_least, check_channels, check_value_range
from sslkit.views.draws import uniforms
from sslkit.views.pixels import Normalize, ValueRange, to_resizable, to_unit
from sslkit.views.resample import KERNELS, Interpolation, fit_square
from sslkit.views.resolution import Resolution, ViewPlan
from sslkit.views.transfer import carry

MAX_VIEWS = 1000
"""Most views of a kind; the most in a paper are 10 (DINO)."""


class MultiCrop(ViewMaker):
    """Global and local views; the defaults are those of DINO (arXiv:2104.14294, §3.2 and appendix; SwAV, 2006.09882).

    Each view: crop, flip, colour jitter, grayscale, blur, solarize, normalize. A view of an image is the same, bit for
    bit on the CPU, in every batch, order, worker and process.

    Saturation, hue and grayscale are defined for RGB only. Left at None they take the value given below if ``channels``
    is 3; otherwise they are left out and named in ``dropped``, and a number above 0 is an error.

    Args:
        global_size: side of the global views, in pixels.
        global_scale: least and greatest share of the image that a global view covers.
        num_global_views: at least 1.
        num_local_views: 0 for global views only.
        local_size: side of the local views, in pixels.
        local_scale: least and greatest share of the image that a local view covers.
        crop_on: ``workers`` crops the original picture in the loader's workers (the papers' geometry); ``device``
            crops a canvas of one size on the device of the batch, both with antialiasing.
        canvas_size: side of the canvas, in pixels, with ``device`` only; a worker resizes the shorter side of each
            picture to it and crops the center.
        interpolation: of the resizing of crops: bicubic (DINO, BYOL) or bilinear (the published code of MoCo and SwAV).
        flip: probability of a mirrored view.
        brightness: b of a factor uniform in max(0, 1 - b) .. 1 + b; 0 leaves the operation out.
        contrast: as brightness.
        saturation: as brightness; None: 0.2.
        hue: h of a rotation uniform in -h .. h turns, at most 0.5; None: 0.1.
        jitter_probability: of applying the four above together, in an order drawn for each view of each image.
        grayscale: probability; None: 0.2.
        global_blur: a probability for each global view.
        global_solarize: a probability for each global view.
        local_blur: probability.
        local_solarize: probability.
        blur_sigma: least and greatest standard deviation of the blur, in pixels.
        channels: number of channels of the images.
        mean: mean of each channel, of values in [0, 1].
        std: standard deviation of each channel, of values in [0, 1].
        value_range: the values of black and of white. None: 0 .. 255 for uint8, 0 .. 65535 for uint16, 0 .. 1 for
            floating images.

    Attributes:
        dropped: operations left out because the images are not RGB.

    Raises:
        RecipeError: an argument is out of its range or does not fit the others.
    """

    def __init__(
        self,
        global_size: int = 224,
        global_scale: tuple[float, float] = (0.4, 1.0),
        num_global_views: int = 2,
        num_local_views: int = 10,
        local_size: int = 96,
        local_scale: tuple[float, float] = (0.05, 0.4),
        crop_on: Literal["workers", "device"] = "workers",
        canvas_size: int | None = None,
        interpolation: Interpolation = "bicubic",
        flip: float = 0.5,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float | None = None,
        hue: float | None = None,
        jitter_probability: float = 0.8,
        grayscale: float | None = None,
        global_blur: Sequence[float] = (1.0, 0.1),
        global_solarize: Sequence[float] = (0.0, 0.2),
        local_blur: float = 0.5,
        local_solarize: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        channels: int = 3,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        value_range: ValueRange | None = None,
    ) -> None:
        check_at_least("num_global_views", num_global_views, 1, MAX_VIEWS)
        check_at_least("num_local_views", num_local_views, 0, MAX_VIEWS)
        _check_canvas(crop_on, canvas_size)
        if interpolation not in KERNELS:
            raise UnknownName("interpolation", interpolation, KERNELS, "interpolation")
        jitter = ColorJitter(channels, brightness, contrast, saturation, hue, jitter_probability, grayscale)
        appearance = Appearance(jitter, global_blur, blur_sigma, global_solarize)
        ids = tuple(range(num_global_views + num_local_views))
        resolutions = [
            Resolution("global", ids[:num_global_views], global_size, global_scale, flip, appearance, interpolation)
        ]
        if num_local_views:
            blurs, solarizes = [local_blur] * num_local_views, [local_solarize] * num_local_views
            appearance = Appearance(jitter, blurs, blur_sigma, solarizes)
            resolutions.append(
                Resolution("local", ids[num_global_views:], local_size, local_scale, flip, appearance, interpolation)
            )
        self.resolutions = tuple(resolutions)
        self.num_globals = num_global_views
        self.sizes = [resolution.size for resolution in resolutions for _ in resolution.view_ids]
        self.channels = channels
        self.crop_on = crop_on
        # Without crops in the workers, images in memory need no worker processes.
        self.prepares_cheaply = crop_on == "device"
        self.canvas_size = canvas_size
        self.dropped = jitter.dropped
        self.normalize = Normalize(channels, mean, std)
        self.value_range = check_value_range(value_range)

    def prepare(self, sample: Sample, epoch: int, seed: int) -> tuple[Tensor, ...]:
        """Return (V, C, size, size) crops for each resolution, or the (C, canvas_size, canvas_size) canvas.

        uint8 stays uint8; every other dtype becomes floating in [0, 1].

        Raises:
            DataError: the image has another number of channels, a dtype without a value range, or floating values
                far outside 0 .. 1 without one.
        """
        check_channels(sample.image, self.channels)
        picture = to_resizable(sample.image, self.value_range)
        if self.canvas_size is not None:
            return (fit_square(picture, self.canvas_size, self.canvas_size),)
        draws = self._draw([sample.key], epoch, seed)
        return tuple(each.crop_picture(picture, draws[:, each.view_ids]) for each in self.resolutions)

    def make(self, prepared: Sequence[Tensor], keys: Tensor, epoch: int, seed: int) -> Views:
        """Return the views of a batch: the global views in one group, the local views in another.

        Args:
            prepared: what `prepare` returned, stacked: (B, V, C, size, size) for each resolution, or canvases
                (B, C, H, W) of any one size, uint8 or floating in [0, 1].
            keys: (B,) int64 sample keys, on the CPU.
            epoch: the pass over the data.
            seed: the run's seed.
        """
        draws, device = self._draw(keys.numpy(), epoch, seed), prepared[0].device
        sides = prepared[0].shape[-2:] if self.crop_on == "device" else None
        on_cpu = device.type == "cpu"
        plans = carry([each.plan(draws[:, each.view_ids], sides, on_cpu) for each in self.resolutions], device)
        # Under autocast the matrix products of the crops would keep only 8 bits of each pixel.
        with torch.autocast(device.type, enabled=False):
            finished = zip(self.resolutions, self._crop(prepared, plans), plans)
            groups = [each.finish(images, plan, self.normalize, self.value_range) for each, images, plan in finished]
        return Views(tuple(groups), self.num_globals)

    def _crop(self, prepared: Sequence[Tensor], plans: Sequence[ViewPlan]) -> list[Tensor]:
        """Return (V, B, C, size, size) crops for each resolution."""
        if self.crop_on == "workers":
            return [crops.transpose(0, 1) for crops in prepared]
        canvases = prepared[0]
        canvases = canvases if canvases.is_floating_point() else to_unit(canvases, self.value_range)
        return [each.crop_canvases(canvases, plan) for each, plan in zip(self.resolutions, plans)]

    def _draw(self, keys: Sequence[int] | NDArray[np.int64], epoch: int, seed: int) -> NDArray[np.float64]:
        return uniforms(seed, epoch, keys, range(len(self.sizes)))


def _check_canvas(crop_on: str, canvas_size: int | None) -> None:
    if crop_on not in ("workers", "device"):
        raise UnknownName("place to crop", crop_on, ("workers", "device"), "crop_on")
    if crop_on == "device" and canvas_size is None:
        raise RecipeError("crop_on: device needs canvas_size, the side in pixels that every image is brought to")
    if crop_on == "workers" and canvas_size is not None:
        raise RecipeError("canvas_size belongs to crop_on: device; crop_on: workers crops the original picture")
    if canvas_size is not None:
        check_at_least("canvas_size", canvas_size, 1)
