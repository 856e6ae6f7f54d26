"""Description of and recommendations on the size of `NegativeQueue`."""

from collections.abc import Iterator

from sslkit.recommendation import Recommendation, RunContext

PUBLISHED_SHARE, LARGEST_SHARE = 0.05, 0.1
"""Images in the queue over training images: MoCo's on ImageNet, and a little above its CIFAR-10 demo (8 %)."""


def describe_negatives(size: int, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield the share of the training images in a queue of ``size`` embeddings, and how long each stays in it."""
    yield "negative queue", f"{size:,} embeddings, of {_share(size, context):.1%} of the images"
    yield "negatives stay", context.span(size / context.batch_size / context.teacher_views)


def recommend_negatives(size: int, context: RunContext) -> Iterator[Recommendation]:
    """Yield a smaller size where an image would often find its own embeddings among ``size`` negatives."""
    share, new = _share(size, context), context.batch_size * context.teacher_views
    # A multiple of what one step writes, as the published code requires; at least one step's.
    fitting = new * max(1, int(PUBLISHED_SHARE * context.num_images * context.teacher_views / new))
    changes = {"size": fitting} if fitting < size else {}
    if share >= 1:
        yield Recommendation(
            f"{size:,} negatives hold all {context.num_images:,} images, so that each meets itself among them",
            "moco#146",
            changes,
        )
    elif share > LARGEST_SHARE and changes:
        yield Recommendation(
            f"the negatives are {share:.0%} of the images, which will often meet themselves; MoCo's are 5 %",
            "MoCo: 65536 of 1.28 M; 4096 of 50000 in its CIFAR-10 demo",
            changes,
            is_warning=False,
        )


def _share(size: int, context: RunContext) -> float:
    """Return the images in the queue over the training images; each image has ``teacher_views`` embeddings in it."""
    return size / context.teacher_views / context.num_images
