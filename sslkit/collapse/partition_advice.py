"""Recommend enough images for an equal partition over prototypes."""

from collections.abc import Iterator, Mapping
from typing import Any

from sslkit.recommendation import Recommendation, RunContext, counted

SCARCE, ENOUGH = 0.1, 1024
"""Images a view, over prototypes and by themselves, that are too few below both.

SwAV's 256 for 3000 prototypes get a queue (§4.1); DINO balanced 1024 over 65536 without one (table 7 row 3).
"""


def balanced_together(num_images: int, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield how many images of a view are balanced together, for `sslkit explain`."""
    if context.num_prototypes:
        each = counted(num_images / context.num_prototypes)
        yield "balanced together", f"{num_images:,} images a view, {each} a prototype"


def enough(context: RunContext) -> float:
    """Return the images a view that are not too few."""
    return min(SCARCE * (context.num_prototypes or 0), ENOUGH)


def is_too_few(num_images: int, context: RunContext) -> bool:
    """Whether so many images a view are far fewer than the prototypes, and fewer than have been seen to suffice."""
    return num_images < enough(context)


def too_few(num_images: int, context: RunContext, changes: Mapping[str, Any]) -> Recommendation:
    """Return the recommendation for too few images, with the changes that would settle it."""
    reason = (
        f"{num_images:,} images a view cannot be shared out equally over {context.num_prototypes:,} prototypes; SwAV "
        "takes a queue for batches of 256"
    )
    return Recommendation(reason, "SwAV §3.1", changes, leads_to=("uniform collapse",))
