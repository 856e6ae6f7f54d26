"""Recommendations on the number of images that are assigned equally to prototypes."""

from collections.abc import Iterator, Mapping
from typing import Any

from sslkit.recommendation import Recommendation, RunContext, counted

FLAT, USUAL = 0.5, 0.05
"""The weight of the entropy, or temperature, from which assignments are nearly uniform, ten times the published one."""

SCARCE, ENOUGH = 0.1, 1024
"""Images per view and prototype, and images per view; a batch that is below both is too small.

SwAV adds a queue to batches of 256 for 3000 prototypes (§4.1); DINO balanced 1024 images over 65536 prototypes without
one (table 7 row 3).
"""


def balanced_together(num_images: int, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield the number of images that are balanced together in each view, for `sslkit explain`."""
    if context.num_prototypes:
        each = counted(num_images / context.num_prototypes)
        yield "balanced together", f"{num_images:,} images a view, {each} a prototype"


def enough(context: RunContext) -> float:
    """Return the smallest sufficient number of images per view."""
    return min(SCARCE * (context.num_prototypes or 0), ENOUGH)


def is_too_few(num_images: int, context: RunContext) -> bool:
    """Whether ``num_images`` per view are too few to be assigned to all prototypes equally."""
    return num_images < enough(context)


def too_few(num_images: int, context: RunContext, changes: Mapping[str, Any]) -> Recommendation:
    """Return the recommendation for too few images per view, with the ``changes`` that fix it."""
    reason = (
        f"{num_images:,} images a view cannot be shared out equally over {context.num_prototypes:,} prototypes; SwAV "
        "takes a queue for batches of 256"
    )
    return Recommendation(reason, "SwAV §3.1", changes, leads_to=("uniform collapse",))


def too_flat(key: str, value: float) -> Iterator[Recommendation]:
    """Yield the published value of ``epsilon``, or of a temperature, where assignments are nearly uniform."""
    if value >= FLAT:
        yield Recommendation(
            f"{key} {value:g} makes nearly uniform assignments of cosines; SwAV and DINO take 0.05",
            "SwAV §3.1, DINO table 7",
            {key: USUAL},
            leads_to=("uniform collapse", "not learning"),
        )
