"""Runs as components see them before they start, and what components recommend there."""

from sslkit import (
    Clock,
    RunContext,
)

IMAGENET = 1_281_167


def run(batch=1024, epochs=300, images=IMAGENET, **more):
    """The setting of a run; without arguments that of DINO's ViT-S/16."""
    steps = images // batch
    clock = Clock(0, max(1, round(epochs * steps)), max(1, steps))
    return RunContext(images, batch, clock, **{"num_prototypes": 65536, "learning_rate": 0.002, **more})


def reasons(part, context):
    return [recommendation.reason for recommendation in part.recommend(context)]


def the_recommendation(part, context):
    [recommendation] = part.recommend(context)
    return recommendation
