"""Describe where weights and a backbone differ, and which override accepts it."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from sslkit.backbones.foreign import Weights
from sslkit.errors import some

MOST = 8
"""Number of differing prefixes above which the weights are reported as those of another network."""


def groups(names: Iterable[str]) -> dict[str, int]:
    """Return the number of dotted names for each first word, ``fc`` of ``fc.weight``."""
    return Counter(name.partition(".")[0] for name in names)


def listed(counts: Mapping[str, int]) -> str:
    """Return counts of names as text: ``fc (4), queue (1)``."""
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def beyond(names: Iterable[str], allowed: Collection[str]) -> list[str]:
    """Return the names that are below none of the prefixes ``allowed``."""
    return [name for name in names if not any(is_below(name, begin) for begin in allowed)]


def is_below(name: str, begin: str) -> bool:
    """Return whether a dotted name equals ``begin`` or continues it with a dot: ``a.b`` is below ``a``, not ``ab``."""
    return name == begin or name.startswith(f"{begin}.")


def describe_mismatch(
    weights: Weights,
    own: Collection[str],
    taken: Collection[str],
    wrong: Mapping[str, Sequence[str]],
    partial: Collection[str],
) -> str:
    """Return an error message that lists how weights differ from a backbone, and the override that accepts them.

    Args:
        weights: the weights to load.
        own: names of the backbone's weights.
        taken: those names whose weights fit.
        wrong: the other names, by the description of the difference.
        partial: the present value of ``method.init_from.partial``.
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
        "Change method.backbone to that network, or accept that these keep their initialisation or are not used:",
        f"  --method.init_from.partial '[{', '.join(dict.fromkeys([*partial, *begins]))}]'",
    ]
    return "\n".join(lines)


def _beginnings(names: Iterable[str], taken: Collection[str]) -> list[str]:
    """Return the shortest prefixes that these names are below, and none of those taken."""
    found: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        begins = [".".join(words[: i + 1]) for i in range(len(words))]
        found[next((begin for begin in begins if not any(is_below(other, begin) for other in taken)), name)] = None
    return list(found)
