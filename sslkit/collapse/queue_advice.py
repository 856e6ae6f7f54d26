"""How a queue of earlier images fits a run: SwAV §4.1 (arXiv:2006.09882) and its published code."""

import math
from collections.abc import Iterator
from typing import Any

from sslkit.clock import Duration
from sslkit.collapse.partition import enough
from sslkit.recommendation import Concern, Setting

BATCHES, BEGINNING = 15, 0.075
"""SwAV's queue for batches of 256: 3840 images a view, from epoch 15 of 200 on."""


def queue_for(setting: Setting) -> dict[str, Any]:
    """Return a queue that makes a batch large enough, as a recipe writes it; nothing where the run has no room."""
    batches = max(BATCHES, math.ceil(enough(setting) / setting.batch_size) - 1)
    start, size = setting.share(BEGINNING), batches * setting.batch_size
    if start.steps(setting.clock) + batches >= setting.clock.total_steps or size >= setting.num_images:
        return {}
    return {"queue_size": size, "num_views": setting.teacher_views, "queue_start": str(start)}


def queue_facts(batches: int, start: Duration, setting: Setting) -> Iterator[tuple[str, str]]:
    """Yield how old its images become, and when it is used."""
    full = start.steps(setting.clock) + batches
    yield "queue", f"{setting.batch_size * batches:,} images a view; each stays {setting.span(batches)}"
    yield "queue in use", f"after {setting.span(full)}" if full < setting.clock.total_steps else "never"


def queue_concerns(size: int, start: Duration, setting: Setting) -> Iterator[Concern]:
    """Yield what speaks against a queue.

    Args:
        size: images a view.
        start: when it begins to fill.
        setting: the run.
    """
    batch, batches, total = setting.batch_size, size // setting.batch_size, setting.clock.total_steps
    if batch * batches >= setting.num_images:
        yield Concern(
            f"a queue of {size:,} holds all {setting.num_images:,} images, each as it was before",
            "SwAV's holds 3840 of 1.28 M",
            {"queue_size": batch * min(BATCHES, (setting.num_images - 1) // batch)},
        )
    elif size % batch:
        yield Concern(
            f"a queue of {size:,} holds {batches} batches of {batch:,}; the rest of it stays empty",
            changes={"queue_size": batch * batches},
        )
    full, earlier = start.steps(setting.clock) + batches, setting.share(BEGINNING)
    if full >= total:
        yield Concern(
            f"the queue is never used: it would be full after {full:,} steps, the run has {total:,}",
            "SwAV's starts at epoch 15 of 200",
            {"queue_start": str(earlier)} if earlier.steps(setting.clock) + batches < total else {},
        )
