"""Describe where weights and a backbone differ, and which override accepts it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from sslkit.backbones.foreign import Weights

MOST = 8
"""Parts that differ, above which it is another network rather than a part of this one."""


def groups(names: Iterable[str]) -> dict[str, int]:
    """Return how many names begin with each first word."""
    return Counter(name.partition(".")[0] for name in names)


def listed(counts: Mapping[str, int]) -> str:
    """Write groups of names with their numbers: ``fc (4), queue (1)``."""
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def beyond(names: Iterable[str], allowed: Collection[str]) -> list[str]:
    """Return the names that lie below none of these beginnings."""
    return [name for name in names if not any(is_below(name, begin) for begin in allowed)]


def is_below(name: str, begin: str) -> bool:
    """Whether a dotted name is another, or goes on behind it."""
    return name == begin or name.startswith(f"{begin}.")


def describe_mismatch(
    weights: Weights,
    own: Collection[str],
    taken: Collection[str],
    wrong: Mapping[str, Sequence[str]],
    partial: Collection[str],
) -> str:
    """Return why weights are refused, and the override that would take them.

    Args:
        weights: from elsewhere.
        own: the backbone's names.
        taken: those of them that fit.
        wrong: the others, by what is wrong.
        partial: the override as it is.
    """
    if not taken:
        return (
            f"{weights.source} has no weight of this backbone. Is it another network? Its names begin with "
            f"{', '.join(groups(weights.tensors))}; those of method.backbone with {', '.join(groups(own))}"
        )
    lines = [f"{weights.source} is not this backbone; {len(taken)} of {len(own)} tensors fit."]
    lines += [f"  {what}: {some(names)}" for what, names in wrong.items() if names]
    begins = _beginnings([name for names in wrong.values() for name in names], taken)
    if len(begins) > MOST:
        return "\n".join([*lines, "It seems to be another network: change method.backbone to it"])
    lines += [
        "Change method.backbone to the network that it is, or let these start afresh or stay behind:",
        f"  --method.init_from.partial '[{', '.join(dict.fromkeys([*partial, *begins]))}]'",
    ]
    return "\n".join(lines)


def some(names: Sequence[str], limit: int = 4) -> str:
    """Write the first names, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _beginnings(names: Iterable[str], taken: Collection[str]) -> list[str]:
    """Return the shortest beginnings that cover these names and none of the taken."""
    found: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        begins = [".".join(parts[: i + 1]) for i in range(len(parts))]
        found[next((begin for begin in begins if not any(is_below(other, begin) for other in taken)), name)] = None
    return list(found)
