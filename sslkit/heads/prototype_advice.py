"""Description of and recommendations on the number of prototypes of a head."""

from collections.abc import Iterator

from sslkit.recommendation import Recommendation, RunContext, counted, power_of_two

PUBLISHED, FEWEST = 20, 4.8
"""ImageNet images per prototype in DINO: with K = 65536, and with the largest K of appendix C, 262144."""


LEAST = 64
"""Smallest number of prototypes that is recommended: half of that of the smallest built-in recipe."""


def images_a_prototype(num_prototypes: int | None, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield the number of images per prototype, in the data and in a step, for `sslkit explain`."""
    if num_prototypes:
        data, step = (counted(images / num_prototypes) for images in (context.num_images, context.batch_size))
        yield "images a prototype", f"{data} in the data, {step} in a step"


def few_images(num_prototypes: int | None, context: RunContext) -> Iterator[Recommendation]:
    """Yield a smaller number of prototypes where there are too few images for ``num_prototypes``."""
    if num_prototypes == 1:
        yield Recommendation(
            "a single prototype is the target of every image",
            changes={"num_prototypes": LEAST},
            leads_to=("one-dimension collapse", "uniform collapse", "not learning"),
        )
    share = context.num_images / num_prototypes if num_prototypes else FEWEST
    if share >= FEWEST:
        return
    # A power of two, as the published numbers of prototypes are.
    fitting = max(LEAST, power_of_two(context.num_images / PUBLISHED))
    yield Recommendation(
        f"{num_prototypes:,} prototypes for {context.num_images:,} images, {counted(share)} images each; DINO had 20 "
        "each, and lost 0.4 points with 4096 prototypes",
        "DINO appendix C",
        {"num_prototypes": fitting} if context.num_images >= FEWEST * fitting else {},
        is_warning=share < 1,
    )
