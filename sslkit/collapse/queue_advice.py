"""Description of and recommendations on the queue of `SinkhornKnopp` (SwAV §4.1, arXiv:2006.09882, and its code)."""

import math
from collections.abc import Iterator
from typing import Any

from sslkit.clock import Duration
from sslkit.collapse.partition_advice import enough
from sslkit.recommendation import Recommendation, RunContext

BATCHES, BEGINNING = 15, 0.075
"""Length in batches and start as a share of the run in SwAV, batches of 256: 3840 images a view, epoch 15 of 200."""


def queue_for(context: RunContext) -> dict[str, Any]:
    """Return recipe arguments of a queue that makes the batch large enough; empty where the run is too small."""
    # The batch itself is balanced with the queue, so the queue needs one batch less.
    batches = max(BATCHES, math.ceil(enough(context) / context.batch_size) - 1)
    start, size = context.share(BEGINNING), batches * context.batch_size
    if start.steps(context.clock) + batches >= context.clock.total_steps or size >= context.num_images:
        return {}
    return {"queue_size": size, "num_views": context.teacher_views, "queue_start": str(start)}


def describe_queue(batches: int, start: Duration, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield the size of a queue of ``batches`` batches, how long an embedding stays in it, and when it is used."""
    full = start.steps(context.clock) + batches
    yield "queue", f"{context.batch_size * batches:,} images a view; each stays {context.span(batches)}"
    yield "queue in use", f"after {context.span(full)}" if full < context.clock.total_steps else "never"


def recommend_queue(size: int, start: Duration, context: RunContext) -> Iterator[Recommendation]:
    """Yield changes of a queue that holds every image, has an unused rest, or never fills.

    Args:
        size: images per view.
        start: when the queue begins to fill.
        context: the run.
    """
    batch, batches, total = context.batch_size, size // context.batch_size, context.clock.total_steps
    if batch * batches >= context.num_images:
        yield Recommendation(
            f"a queue of {size:,} holds all {context.num_images:,} images, each as it was before",
            "SwAV's holds 3840 of 1.28 M",
            {"queue_size": batch * min(BATCHES, (context.num_images - 1) // batch)},
        )
    elif size % batch:
        yield Recommendation(
            f"a queue of {size:,} holds {batches} batches of {batch:,}; the rest of it stays empty",
            changes={"queue_size": batch * batches},
        )
    full, earlier = start.steps(context.clock) + batches, context.share(BEGINNING)
    if full >= total:
        yield Recommendation(
            f"the queue is never used: it would be full after {full:,} steps, the run has {total:,}",
            "SwAV's starts at epoch 15 of 200",
            {"queue_start": str(earlier)} if earlier.steps(context.clock) + batches < total else {},
        )
