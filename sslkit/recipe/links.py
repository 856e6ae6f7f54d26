"""Links between arguments of components, so that a recipe gives each value once."""

from typing import NamedTuple

from sslkit.method.fit import NEEDS_PROTOTYPES


class Link(NamedTuple):
    """Keys of a value and of the argument that takes it, if the class has an argument of that name."""

    source: str
    target: str


LINKS = [
    Link("data.channels", "data.train.channels"),
    Link("data.channels", "data.test.channels"),
    Link("data.max_pixels", "data.train.max_pixels"),
    Link("data.max_pixels", "data.test.max_pixels"),
    Link("data.channels", "method.backbone.in_chans"),
    Link("data.channels", "views.channels"),
    Link("data.mean", "views.mean"),
    Link("data.std", "views.std"),
    Link("data.value_range", "views.value_range"),
    Link("method.backbone.embed_dim", "method.head.in_dim"),
    Link("method.head.embed_dim", "method.predictor.dim"),
    Link("method.head.embed_dim", "method.collapse.embed_dim"),
    Link("method.head.num_prototypes", "method.collapse.num_prototypes"),
]

WHERE_NULL = {"method.head.num_prototypes": NEEDS_PROTOTYPES}
"""Messages for components that need a linked value whose source is null."""

_SOURCES = {link.target: link.source for link in LINKS}


def source_of_link(key: str) -> str | None:
    """Return the key that the argument at ``key`` takes its value from, or None."""
    return _SOURCES.get(key)
