"""Symptoms of failure modes in logged metrics: each returns the numbers that show it, or an empty text.

The bounds lie well between what healthy and deliberately broken runs showed; docs/doctor.md has both.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from sslkit.recommendation import FailureMode

Row = Mapping[str, Any]

FEWEST_PROTOTYPES = 2.0
"""That a batch's targets name together; below, one takes (nearly) all."""

UNIFORM, INDISTINCT = 0.98, 0.02
"""Entropy of targets from which they say nothing, and KL up to which the student agrees, as shares of ln K."""

SAME = 0.98
"""Cosine of different images from which all have one embedding."""

ONE_DIRECTION = 1.2
"""Directions of embeddings up to which they lie on a line."""

NEAR_CHANCE = 0.005
"""Share of the chance loss, nearer than which the loss is no better than chance."""


def ln_k(row: Row) -> float | None:
    """Return the entropy of uniform targets, ln K in nats; None where targets are no distributions over prototypes."""
    if row.get("marginal_entropy") is None or row.get("prototype_use") is None:
        return None
    return float(row["marginal_entropy"] - math.log(row["prototype_use"]))


def _one_prototype(row: Row) -> str:
    if ln_k(row) is None:
        return ""
    named = math.exp(row["marginal_entropy"])
    return f"the targets of a batch name {named:.2g} prototypes together" * (named < FEWEST_PROTOTYPES)


def _uniform(row: Row) -> str:
    most, entropy, kl = ln_k(row), row.get("target_entropy"), row.get("target_kl")
    if most is None or entropy is None or kl is None or not (entropy >= UNIFORM * most and kl <= INDISTINCT * most):
        return ""
    return f"the targets' entropy is {entropy / most:.1%} of ln K = {most:.2f}, and the student agrees (KL {kl:.2g})"


def _one_embedding(row: Row) -> str:
    cosine = row.get("image_cosine")
    return f"embeddings of different images have cosine {cosine:.4f}" if cosine is not None and cosine > SAME else ""


def _one_direction(row: Row) -> str:
    number = row.get("embedding_directions")
    return f"embeddings vary along {number:.2f} directions" if number is not None and number < ONE_DIRECTION else ""


def _near_chance(row: Row) -> str:
    below, loss = row.get("loss_below_chance"), row.get("loss")
    if below is None or loss is None or not below <= NEAR_CHANCE * (loss + below):
        return ""
    return f"the loss is {loss:.3f}, that of a student which knows nothing {loss + below:.3f}"


def _unpredicted(row: Row) -> str:
    """Compare KL(targets || student) with KL(targets || their mean), what one answer for all images would have."""
    marginal, entropy, kl = (row.get(name) for name in ("marginal_entropy", "target_entropy", "target_kl"))
    if marginal is None or entropy is None or kl is None or not kl > marginal - entropy:
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
