"""Symptoms of failure modes in logged metrics: each returns the numbers that show it, or an empty text.

The bounds lie well between what healthy and deliberately broken runs showed; docs/doctor.md has both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sslkit.recommendation import FailureMode

Row = Mapping[str, Any]

FEWEST_PROTOTYPES = 2.0
"""That a batch's targets name together; below, one takes (nearly) all. With K = 2 it is half of the second, 1.5."""

UNIFORM, INDISTINCT = 0.98, 0.02
"""Entropy of targets from which they say nothing, and KL up to which the student agrees, as shares of ln K."""

SAME = 0.98
"""Cosine of different images from which all have one embedding."""

ONE_DIRECTION = 1.2
"""Directions of embeddings up to which they lie on a line."""

NEAR_CHANCE = 0.005
"""Share of the chance loss, nearer than which the loss is no better than chance."""


UNPREDICTED = 1.25
"""KL to the targets over that of one answer for all images: at most 0.75 where runs learn, at least 1.8 where not."""

SKIPPED_OF, SKIPPED_SHARE = 10, 0.5
"""Steps back, at least, and share of them from which skipped steps are a divergence; a single one is none."""

LARGEST_ENTROPY = 50.0
"""Nats; more prototypes than exp of that have no memory to be in."""


def ln_k(row: Row) -> float | None:
    """Return the entropy of uniform targets, ln K in nats; None where targets are no distributions over prototypes."""
    entropy, use = row.get("marginal_entropy"), row.get("prototype_use")
    # Not those of a step that was not finite, nor of a damaged file.
    if entropy is None or use is None or not (0 <= entropy < LARGEST_ENTROPY and 0 < use < math.inf):
        return None
    most = entropy - math.log(use)
    return float(most) if most < LARGEST_ENTROPY else None


def _num_prototypes(row: Row) -> int | None:
    most = ln_k(row)
    return None if most is None else round(math.exp(most))


def _one_prototype(row: Row) -> str:
    prototypes = _num_prototypes(row)
    if prototypes is None:
        return ""
    named = math.exp(row["marginal_entropy"])
    fewest = 1.5 if prototypes == 2 else FEWEST_PROTOTYPES
    return f"the targets of a batch name {named:.2g} prototypes together" * (named < fewest)


def _uniform(row: Row) -> str:
    most, entropy, kl = ln_k(row), row.get("target_entropy"), row.get("target_kl")
    if not most or entropy is None or kl is None or not (entropy >= UNIFORM * most and kl <= INDISTINCT * most):
        return ""
    return f"the targets' entropy is {entropy / most:.1%} of ln K = {most:.2f}, and the student agrees (KL {kl:.2g})"


def _one_embedding(row: Row) -> str:
    cosine = row.get("image_cosine")
    return f"embeddings of different images have cosine {cosine:.4f}" if cosine is not None and cosine > SAME else ""


def _one_direction(row: Row) -> str:
    number = row.get("embedding_directions")
    # Two prototypes are told apart along one direction.
    if number is None or number >= ONE_DIRECTION or _num_prototypes(row) == 2:
        return ""
    return f"embeddings vary along {number:.2f} directions"


def diverged(rows: Sequence[Row]) -> str:
    """Tell from the last rows, without an average, that training has ended in numbers that are not finite."""
    last = rows[-1]
    if tensors := last.get("nonfinite_tensors"):
        return f"{tensors:.0f} weights, buffers or moments of the optimizer are not finite"
    since = next((row for row in reversed(rows) if row["step"] <= last["step"] - SKIPPED_OF), {"step": 0})
    skipped = (last.get("skipped_steps") or 0) - (since.get("skipped_steps") or 0)
    steps = last["step"] - since["step"]
    if skipped < SKIPPED_SHARE * max(steps, SKIPPED_OF):
        return ""
    return f"{skipped:.0f} of the last {steps:.0f} steps moved nothing: loss, teacher or gradients were not finite"


def stands_still(rows: Sequence[Row]) -> str:
    """Tell from all rows that student or teacher keeps its first weights; schedules may do so for a while."""
    if all(row.get("lr") == 0 for row in rows):
        return "the learning rate is 0"
    if all((row.get("teacher_momentum") or 0) >= 1 for row in rows):
        return "the teacher has momentum 1 and keeps its first weights"
    return ""


def _near_chance(row: Row) -> str:
    below, loss = row.get("loss_below_chance"), row.get("loss")
    if below is None or loss is None or not below <= NEAR_CHANCE * (loss + below):
        return ""
    return f"the loss is {loss:.3f}, that of a student which knows nothing {loss + below:.3f}"


def _unpredicted(row: Row) -> str:
    """Compare KL(targets || student) with KL(targets || their mean), what one answer for all images would have.

    The mean of a small batch is nearer to its own targets than any answer that is not made of them.
    """
    marginal, entropy, kl = (row.get(name) for name in ("marginal_entropy", "target_entropy", "target_kl"))
    if marginal is None or entropy is None or kl is None or not kl > UNPREDICTED * (marginal - entropy):
        return ""
    return f"one answer for all images would match the targets better: KL {marginal - entropy:.2g}, not {kl:.2g}"


SYMPTOMS: Mapping[FailureMode, Callable[[Row], str]] = {
    "one-dimension collapse": _one_prototype,
    "uniform collapse": _uniform,
    "constant embeddings": _one_embedding,
    "dimensional collapse": _one_direction,
}
"""The symptom of each failure mode, by averaged rows. The first that is found is reported."""

LATE_SYMPTOMS = (_near_chance, _unpredicted)
"""What tells that a run does not learn, once it should have."""
