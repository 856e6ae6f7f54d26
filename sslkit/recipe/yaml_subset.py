"""The YAML of recipes: a small part of YAML that means the same with every release of PyYAML, and is safe to read.

It has mappings, lists, text, numbers, true, false and null; keys are text as written. It has no tags, no merge keys, no
dates, and no numbers in base 8 or 60: such words are text. Sizes are limited, so that no file can fill the memory.
"""

import re
from typing import Any

import yaml

from sslkit.errors import RecipeError

MAX_BYTES = 100_000
"""Largest size of a recipe file; that of the longest built-in one is 4,000."""

MAX_DEPTH = 32
"""Most levels of nesting; built-in recipes have 6."""

MAX_VALUES = 10_000
"""Most values, those behind aliases counted at each use."""

TOO_LARGE = f"a recipe has at most {MAX_VALUES:,} values and {MAX_DEPTH} levels, those that aliases repeat included"

MAX_TEXT = 4_096
"""Most characters of one text, as in the longest path."""

NO_MERGE_KEYS = (
    "the merge key << is not read, as releases of PyYAML give it different meanings: "
    "write base: NAME to start from another recipe, or repeat the keys"
)


class RefusedYaml(yaml.constructor.ConstructorError):
    """Valid YAML that recipes do not allow."""


def parse_yaml(text: str | bytes, origin: str) -> Any:
    """Return the value of a YAML document as plain data.

    Args:
        text: the document; bytes are UTF-8.
        origin: the file or option that it comes from, for messages.

    Raises:
        RecipeError: it is no text, no YAML, or none that recipes allow.
    """
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{origin} cannot be read: a recipe has at most {MAX_BYTES:,} bytes")
    try:
        text = text.decode() if isinstance(text, bytes) else text
        return yaml.load(text, _Loader)
    except (UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise RecipeError(f"{origin} cannot be read: a recipe is text in UTF-8 ({_one_line(error)})") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark and "\n" in text else ""
        kind = "" if isinstance(error, RefusedYaml) else "not valid YAML: "
        raise RecipeError(f"{origin}{line}: {kind}{_one_line(error.problem or error)}") from None


class _Loader(yaml.SafeLoader):
    """YAML loader that reads 1e-3 as a number, takes only true and false as booleans, and refuses the rest by name.

    It refuses merge keys, since of ``<<: [*a, *b]`` the first wins in PyYAML 6.0.3 and the last in 6.0.4.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        # A quoted scalar has the tag "!" in some releases; it is text like any other.
        if getattr(event, "tag", None) not in (None, "!"):
            raise RefusedYaml(None, None, f"the tag {_local(event.tag)} is not read: leave it out", event.start_mark)
        self._depth += 1
        self._count += 1
        # While the file is read, so that nothing is read beyond the limits.
        if self._depth > MAX_DEPTH or self._count > MAX_VALUES:
            raise RefusedYaml(None, None, TOO_LARGE, event.start_mark)
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not is_alias:
            self._sizes[id(node)] = self._size(node)
        elif id(node) not in self._sizes:
            raise RefusedYaml(None, None, "an alias stands inside the value that it repeats", event.start_mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        # The tag rather than the text: a quoted "<<" is a key like any other.
        if node.tag == _MERGE:
            raise RefusedYaml(None, None, NO_MERGE_KEYS, node.start_mark)
        if "\0" in node.value:
            # Files and programs end a text there, or refuse it.
            raise RefusedYaml(None, None, "a text has no NUL character", node.start_mark)
        if len(node.value) > MAX_TEXT:
            problem = f"a text has at most {MAX_TEXT:,} characters, not {len(node.value):,}"
            raise RefusedYaml(None, None, problem, node.start_mark)
        return node

    def _size(self, node: yaml.Node) -> tuple[int, int]:
        """Return the number of values and of levels of a node, those behind aliases counted at each use."""
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        children = node.value if isinstance(node, yaml.SequenceNode) else [child for pair in pairs for child in pair]
        sizes = [self._sizes[id(child)] for child in children]
        count, depth = 1 + sum(count for count, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)
        if count > MAX_VALUES or depth > MAX_DEPTH:
            raise RefusedYaml(None, None, TOO_LARGE, node.start_mark)
        return count, depth

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # PyYAML keeps the last of repeated keys without a message.
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise RefusedYaml(None, None, f"a key is text, not a {key.id}", key.start_mark)
            # As written: the key of a row 1 is "1", and null is a key as unknown as any other.
            key.tag = _TEXT
            if key.value in seen:
                raise RefusedYaml(None, None, f"the key {key.value!r} appears twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Return a whole number of at most 64 bits."""
        # Digits first: Python refuses to convert thousands of them.
        if len(node.value) > 40 or not -(2**64) < int(node.value) < 2**64:
            raise RefusedYaml(None, None, "a whole number has at most 64 bits", node.start_mark)
        return int(node.value)


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())


def _local(tag: str) -> str:
    """Return a tag as it is written in a file."""
    return tag.replace("tag:yaml.org,2002:", "!!")


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"

# PyYAML follows YAML 1.1, where 1e-3 is text, yes, no, on and off are booleans, 0123 is 83, and 1:30 is 90.
_RULES = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.inf|\.nan", "-+0123456789."),
    ("merge", r"<<", "<"),
)
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _RULES:
    _Loader.add_implicit_resolver(  # type: ignore[no-untyped-call]
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})$"), [*_first]
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
