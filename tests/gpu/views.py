"""The operations of the views on the device, kornia's beside ours: the time of a batch, and how far they differ."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import part
import torch
from bench_gpu import SMALL, Size, seconds
from torch import Tensor

from sslkit.types import IMAGENET_MEAN, IMAGENET_STD
from sslkit.views import MultiCrop
from sslkit.views.blur import blur_, gaussian_kernels
from sslkit.views.color import brightness_, contrast_, grayscale_, hue_, saturation_, solarize_
from sslkit.views.pixels import Normalize
from sslkit.views.resample import crop_canvases

Operation = Callable[[Tensor], Tensor]

WIDEST = 2.0
"""Standard deviation of the widest blur, in pixels."""


def operations(images: Tensor) -> Iterator[tuple[str, Operation, Operation]]:
    """Yield a name, our operation, which may work in place, and kornia's; amounts are drawn for each image."""
    from kornia import color, enhance, filters
    from kornia.geometry import transform

    count, side = len(images), images.shape[-1]
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0))
    factors = (0.6 + 0.8 * draws).to(images.device)
    turns = (0.2 * draws - 0.1).to(images.device)
    sigmas = 0.1 + (WIDEST - 0.1) * draws.double()
    kernels = gaussian_kernels(sigmas).to(images)
    taps, wide = 2 * math.ceil(3 * WIDEST) + 1, sigmas.to(images)[:, None].expand(-1, 2)
    mean, std = (torch.tensor(values, device=images.device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalize = Normalize(3, IMAGENET_MEAN, IMAGENET_STD)
    # The middle, at half the side: brought to a quarter more than it has.
    size, edge = side * 5 // 8, side // 4
    boxes = torch.tensor([edge, edge, side // 2, side // 2], device=images.device).expand(count, 1, 4)
    flips = torch.zeros(count, 1, dtype=torch.bool, device=images.device)
    low, high = float(edge), float(edge + side // 2 - 1)
    corners = images.new_tensor([[low, low], [high, low], [high, high], [low, high]]).expand(count, 4, 2)

    yield "brightness", lambda x: brightness_(x, factors), lambda x: enhance.adjust_brightness_accumulative(x, factors)
    yield (
        "contrast",
        lambda x: contrast_(x, factors),
        lambda x: enhance.adjust_contrast_with_mean_subtraction(x, factors),
    )
    yield (
        "saturation",
        lambda x: saturation_(x, factors),
        lambda x: enhance.adjust_saturation_with_gray_subtraction(x, factors),
    )
    yield "hue", lambda x: hue_(x, turns), lambda x: enhance.adjust_hue(x, 2 * math.pi * turns)
    yield "grayscale", grayscale_, lambda x: color.rgb_to_grayscale(x).expand_as(x)
    yield "solarize", solarize_, lambda x: enhance.solarize(x, 0.5)
    yield "blur", lambda x: blur_(x, kernels), lambda x: filters.gaussian_blur2d(x, taps, wide)
    yield (
        "crop",
        lambda x: crop_canvases(x, boxes, flips, size)[0],
        lambda x: transform.crop_and_resize(x, corners, (size, size), mode="bicubic"),
    )
    yield "normalize", normalize, lambda x: enhance.normalize(x, mean, std)


def main() -> None:
    """Report each operation, and a whole batch of views."""
    options, report = part.start("views")
    device, size = torch.device(options.device), Size(calls=50) if options.full else SMALL
    count, side = (64, 224) if options.full else (2, 32)
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)).to(device)
    with report.attempt("operations of kornia"):
        for name, ours, theirs in operations(images):
            with report.attempt(name):
                difference = float((ours(images.clone()) - theirs(images)).abs().max())
                # In place, as the views work; what the values become changes nothing in the time.
                took = 1e3 * seconds(partial(ours, images.clone()), device, size)
                kornia = 1e3 * seconds(partial(theirs, images), device, size)
                detail = f"kornia {part.number(kornia)}, off {difference:.0e}"
                report.figure(name, took, "ms", detail, kornia=kornia, difference=difference)
    maker = MultiCrop(global_size=side, local_size=side * 3 // 7, num_local_views=6, crop_on="device", canvas_size=side)
    canvases, keys = (255 * images).to(torch.uint8), torch.arange(count)
    took = seconds(lambda: maker.make([canvases], keys, 0, 0), device, size)
    report.figure("2 + 6 views of canvases", 1e3 * took, "ms", f"{count / took:,.0f} images/s")


if __name__ == "__main__":
    main()
