"""Which parts of a method work together; docs/mixtures.md argues each refusal.

Components are named here in suggestions alone: no name decides anything.
"""

from sslkit.checks.components import check_component
from sslkit.contracts import CollapseOperator, Head, Loss
from sslkit.errors import ComponentError, RecipeError
from sslkit.types import TargetKind

OPERATORS: dict[TargetKind, str] = {
    "probabilities": "'{Centering: {temperature: 0.04}}'",
    "logits": "'{Centering: {temperature: null}}'",
    "embedding": "null",
}
"""An operator that yields targets of each kind, as an override writes it."""

LOSSES: dict[TargetKind, str] = {"probabilities": "CrossEntropy", "logits": "MSE", "embedding": "MSE"}
"""A loss that takes targets of each kind."""

GIVES_NEGATIVES = "NegativeQueue"
READS_NEGATIVES = "'{InfoNCE: {negatives: targets}}'"
MAKES_NEGATIVES = "'{InfoNCE: {negatives: batch}}'"

WITH_PROTOTYPES = "--method.head '{DINOHead: {num_prototypes: 4096}}'"
WITHOUT_PROTOTYPES = "--method.head.num_prototypes null --optimization.freeze.prototypes null"

NEEDS_PROTOTYPES = f"needs a head with prototypes. Add\n  {WITH_PROTOTYPES}"


def check_fit(head: Head, collapse: CollapseOperator | None, loss: Loss) -> None:
    """Refuse parts that cannot work together.

    Raises:
        RecipeError: naming the parts, and the overrides or the size that resolve it.
    """
    operator = "a method without collapse operator" if collapse is None else type(collapse).__name__
    loss_name, head_name = type(loss).__name__, type(head).__name__
    yields = "embedding" if collapse is None else collapse.yields
    gives = collapse is not None and collapse.gives_negatives
    # Whether anything reads logits, and so trains the prototypes.
    scores = yields != "embedding" or (collapse is not None and collapse.reads != "embedding")

    if scores and head.prototypes is None:
        raise RecipeError(f"method.collapse: {operator} {NEEDS_PROTOTYPES}")
    if yields not in loss.accepts:
        kinds = sorted(loss.accepts)
        raise RecipeError(
            f"method.loss: {loss_name} takes {' or '.join(kinds)}, but {operator} yields {yields}."
            + _add(
                _slot("loss", READS_NEGATIVES if gives else LOSSES[yields], head, scores),
                *(_slot("collapse", _operator_for(loss, kind), head, kind != "embedding") for kind in kinds),
            )
        )
    if loss.needs_negatives and not gives:
        raise RecipeError(
            f"method.loss: {loss_name} needs negatives, which {operator} does not give."
            + _add(
                _slot("collapse", GIVES_NEGATIVES, head, scores=False),
                _slot("loss", MAKES_NEGATIVES, head, scores),
            )
        )
    if gives and not loss.needs_negatives:
        raise RecipeError(
            f"method.collapse: {operator} gives negatives, which {loss_name} does not read."
            + _add(
                _slot("loss", READS_NEGATIVES, head, scores),
                _slot("collapse", OPERATORS[yields], head, yields != "embedding"),
            )
        )
    if head.prototypes is not None and not scores:
        raise RecipeError(
            f"method.head: nothing scores the prototypes of {head_name}, so nothing would train them: {operator} "
            f"yields embeddings, and {loss_name} compares those." + _add(WITHOUT_PROTOTYPES)
        )
    for size in ("num_prototypes", "embed_dim"):
        check_size("collapse", collapse, size, head, size)


def check_contracts(**parts: object) -> None:
    """Refuse parts of a method that do not keep to their contracts; a recipe's have been looked at before.

    Args:
        parts: by slot; None is left out.

    Raises:
        ComponentError: naming the slot, the class and what it lacks.
    """
    for slot, part in parts.items():
        try:
            check_component(part)
        except ComponentError as error:
            error.args = (f"method.{slot}: {error}",)
            raise


def check_size(slot: str, part: object, size: str, other: object, theirs: str) -> None:
    """Refuse a part that was built for another size than the part that it meets has; a recipe's agree by themselves.

    Args:
        slot: of the part.
        part: what was built.
        size: its attribute; a part without it, or where it is None, fits all.
        other: what it meets.
        theirs: the attribute there.

    Raises:
        RecipeError: naming both sizes.
    """
    built, needed = getattr(part, size, None), getattr(other, theirs, None)
    # In a recipe links make them agree; in Python a wrong width would broadcast silently.
    if None not in (built, needed) and built != needed:
        raise RecipeError(
            f"method.{slot}: {type(part).__name__} was built with {size}={built}, but the {theirs} of "
            f"{type(other).__name__} is {needed}"
        )


def _operator_for(loss: Loss, kind: TargetKind) -> str:
    return GIVES_NEGATIVES if loss.needs_negatives else OPERATORS[kind]


def _slot(slot: str, part: str, head: Head, scores: bool) -> str:
    """Return the override that fills a slot, and what the head must become where its prototypes are scored, or not."""
    fits = scores == (head.prototypes is not None)
    return f"--method.{slot} {part}" + ("" if fits else f" {WITH_PROTOTYPES if scores else WITHOUT_PROTOTYPES}")


def _add(*options: str) -> str:
    return "\n  ".join([" Add" if len(options) == 1 else " Add one of", *options])
