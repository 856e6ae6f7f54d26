"""From a 500 x 375 JPEG to eight normalised views, one CPU thread: MultiCrop against torchvision's PIL pipeline.

    python tests/benchmarks/bench_views.py

Both decode with Pillow, crop 2 x 224 + 6 x 96 pixels, jitter, blur, solarize and normalise with DINO's settings, and
end in a batch. The ratio is the median over interleaved repeats; times are CPU time, so that a busy machine disturbs
less. The second table is the share of each stage, the third the cost of `make` for small images held as canvases.
"""

import io
import random
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from sslkit.data.decode import decode
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, Sample
from sslkit.views import MultiCrop

NUM_IMAGES = 16
REPEATS = 9


def make_jpegs(num_images: int, width: int = 500, height: int = 375) -> list[bytes]:
    """Return JPEGs of quality 90: clouds, a few sharp edges and grain, about 80 kB as photographs have."""
    rng = np.random.default_rng(0)
    jpegs = []
    for _ in range(num_images):
        picture = np.full((height, width, 3), 128.0)
        for octave in range(1, 10):
            grid = rng.normal(0, 1, (2**octave, 2**octave, 3)).clip(-3, 3) * 42 + 128
            layer = Image.fromarray(grid.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
            picture += (np.asarray(layer, float) - 128) * 0.85**octave
        y, x = np.mgrid[:height, :width]
        for _ in range(6):
            angle, offset = rng.uniform(0, 2 * np.pi), rng.uniform(40, 180)
            side = np.cos(angle) * (x - width / 2) + np.sin(angle) * (y - height / 2) > offset
            picture[side] = 0.5 * picture[side] + 0.5 * rng.uniform(0, 255, 3)
        picture += rng.normal(0, 8, (height, width, 1))
        buffer = io.BytesIO()
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        jpegs.append(buffer.getvalue())
    return jpegs


def pil_views() -> list[Callable[[Image.Image], Tensor]]:
    """Return one PIL transform for each of the eight views."""

    def blurred(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    def view(size: int, scale: tuple[float, float], blur: float, solarize: float) -> transforms.Compose:
        return transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale, interpolation=InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
                transforms.RandomGrayscale(0.2),
                transforms.RandomApply([blurred], blur),
                transforms.RandomSolarize(128, solarize),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    large = [view(224, (0.4, 1), 1.0, 0.0), view(224, (0.4, 1), 0.1, 0.2)]
    return large + [view(96, (0.05, 0.4), 0.5, 0.0) for _ in range(6)]


def run_pil(jpegs: Sequence[bytes], views: Sequence[Callable[[Image.Image], Tensor]]) -> list[Tensor]:
    """Decode and transform image by image, then stack each view."""
    images = []
    for jpeg in jpegs:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        images.append([view(image) for view in views])
    return [torch.stack(batch) for batch in zip(*images)]


def run_ours(jpegs: Sequence[bytes], maker: MultiCrop, epoch: int) -> dict[str, float]:
    """Return the CPU seconds of each stage."""
    times = [time.process_time()]
    pictures = [decode(jpeg, "bench") for jpeg in jpegs]
    times.append(time.process_time())
    crops = [maker.prepare(Sample(picture, key), epoch, 0) for key, picture in enumerate(pictures)]
    prepared = [torch.stack(batch) for batch in zip(*crops)]
    times.append(time.process_time())
    maker.make(prepared, torch.arange(len(jpegs)), epoch, 0)
    times.append(time.process_time())
    stages = ("decode", "crop and collate", "appearance")
    return {stage: stop - start for stage, start, stop in zip(stages, times, times[1:])}


def measure_jpeg_to_views(num_images: int = NUM_IMAGES, repeats: int = REPEATS) -> dict[str, float]:
    """Return images/s of both pipelines, their median ratio, and the milliseconds an image of our stages."""
    jpegs, views, maker = make_jpegs(num_images), pil_views(), MultiCrop(num_local_views=6)
    pil, ours = [], []
    for repeat in range(repeats + 1):
        start = time.process_time()
        run_pil(jpegs, views)
        pil.append(time.process_time() - start)
        ours.append(run_ours(jpegs, maker, repeat))
    pil, ours = pil[1:], ours[1:]
    totals = [sum(stages.values()) for stages in ours]
    return {
        "PIL images/s": num_images / statistics.median(pil),
        "ours images/s": num_images / statistics.median(totals),
        "ratio": statistics.median(a / b for a, b in zip(pil, totals)),
        **{f"{name} ms": 1e3 * statistics.median(s[name] for s in ours) / num_images for name in ours[0]},
    }


def measure_canvases(num_local_views: int, repeats: int = 30) -> float:
    """Return the milliseconds of `make` on 64 canvases of 32 x 32: two views of 32 pixels and some of 16."""
    maker = MultiCrop(global_size=32, num_local_views=num_local_views, local_size=16, crop_on="device", canvas_size=32)
    canvases, keys = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8), torch.arange(64)
    times = []
    for epoch in range(repeats):
        start = time.process_time()
        maker.make([canvases], keys, epoch, 0)
        times.append(time.process_time() - start)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Print the three tables."""
    torch.set_num_threads(1)
    for name, value in measure_jpeg_to_views().items():
        print(f"{name:24s}{value:8.2f}")
    for num_local_views in (0, 4):
        print(f"64 canvases, 2 + {num_local_views} ms    {measure_canvases(num_local_views):8.2f}")


if __name__ == "__main__":
    main()
