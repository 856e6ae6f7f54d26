"""Recommend a number of prototypes for the number of images."""

from collections.abc import Iterator

from sslkit.recommendation import Recommendation, RunContext, counted, power_of_two

PUBLISHED, FEWEST = 20, 4.8
"""Images of ImageNet a prototype in DINO: with K = 65536, and with the largest K of appendix C, 262144."""


LEAST = 64
"""Prototypes, fewer of which are not proposed: half of the smallest shipped recipe's."""


def images_a_prototype(num_prototypes: int | None, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield the images for each prototype, for `sslkit explain`."""
    if num_prototypes:
        data, step = (counted(images / num_prototypes) for images in (context.num_images, context.batch_size))
        yield "images a prototype", f"{data} in the data, {step} in a step"


def few_images(num_prototypes: int | None, context: RunContext) -> Iterator[Recommendation]:
    """Yield that there are more prototypes than the images can tell apart."""
    share = context.num_images / num_prototypes if num_prototypes else FEWEST
    if share >= FEWEST:
        return
    fitting = max(LEAST, power_of_two(context.num_images / PUBLISHED))
    yield Recommendation(
        f"{num_prototypes:,} prototypes for {context.num_images:,} images, {counted(share)} images each; DINO had 20 "
        "each, and lost 0.4 points with 4096 prototypes",
        "DINO appendix C",
        {"num_prototypes": fitting} if context.num_images >= FEWEST * fitting else {},
        is_warning=share < 1,
    )
