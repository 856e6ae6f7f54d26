"""The registry of components, by kind and class name."""

import ast
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sslkit.errors import SSLKitError, UnknownName, did_you_mean
from sslkit.hookspecs import KINDS, Kind


@dataclass(frozen=True)
class Entry:
    """One registered component.

    Args:
        kind: its kind's hook name ("losses").
        target: ``package.module:Class``, or the class.
        plugin: the plugin that offers it.
        origin: the plugin's package and version, or its file, as a person would look for it.
    """

    kind: str
    target: str | type
    plugin: str
    origin: str

    @property
    def path(self) -> str:
        """Where the class is, as ``package.module:Class``."""
        target = self.target
        return target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"

    @property
    def name(self) -> str:
        """The class name, which is the name in recipes."""
        return self.path.rpartition(":")[2]

    @property
    def summary(self) -> str:
        """The first sentence of the class's docstring, read without importing it; empty where there is none."""
        module, _, name = self.path.partition(":")
        first, stop, _ = class_docstring(module, name).partition("\n")[0].partition(". ")
        return f"{first}{stop.strip()}".replace("``", "")

    def load(self) -> type:
        """Import the class.

        Raises:
            SSLKitError: it cannot be imported, or does not fulfil the contract of its kind.
        """
        found = import_class(self.path) if isinstance(self.target, str) else self.target
        return fulfilling(found, kind_of(self.kind), f"{self.name} of {self.origin}")


class Registry:
    """Every registered component, by kind and class name.

    A name that two plugins offer belongs to neither: asking for it is refused with both origins.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Add a component; one that is taken is kept beside the first, so that both origins can be named."""
        self._entries.setdefault((entry.kind, entry.name), []).append(entry)

    def find(self, kind: str, name: str) -> Entry | None:
        """Return the first component of this name, or None."""
        return next(iter(self._entries.get((kind, name), ())), None)

    def entries(self, kind: str) -> list[Entry]:
        """Return a kind's components by name, a name offered twice once."""
        return [same[0] for (k, _), same in sorted(self._entries.items(), key=lambda item: item[0]) if k == kind]

    def names(self, kind: str) -> list[str]:
        """Return a kind's class names in order."""
        return [entry.name for entry in self.entries(kind)]

    def get(self, kind: str, name: str, where: str = "") -> type:
        """Return a component's class.

        Args:
            kind: the kind's hook name.
            name: a class name, or ``package.module.Class`` for a class that no plugin offers.
            where: the recipe key that names it, for the error.

        Raises:
            UnknownName: there is none.
            SSLKitError: two plugins offer it, it cannot be imported, or it breaks its contract.
        """
        prefix = f"{where}: " if where else ""
        if "." in name or ":" in name:
            return fulfilling(import_class(name, prefix), kind_of(kind), f"{prefix}{name}")
        same = self._entries.get((kind, name), [])
        if not same:
            raise UnknownName(kind_of(kind).singular, name, self.names(kind), where)
        if len(same) > 1:
            raise SSLKitError(
                f"{prefix}{name} is offered by {' and by '.join(entry.origin for entry in same)}. Set "
                f"SSLKIT_DISABLE_PLUGINS={same[-1].plugin} to leave one out, or write the class's dotted path."
            )
        return same[0].load()

    def short_name(self, kind: str, found: type) -> str:
        """Return the name under which a recipe finds this class: its class name, else its dotted path."""
        entry = self.find(kind, found.__name__)
        here = f"{found.__module__}:{found.__qualname__}"
        return found.__name__ if entry and entry.path == here else here.replace(":", ".")


def kind_of(word: str) -> Kind:
    """Return the kind that a hook name, a command-line name or the beginning of one means ("collapse").

    Raises:
        UnknownName: there is no such kind, or more than one.
    """
    plain = word.lower().replace("-", "_")
    meant = [kind for kind in KINDS if plain and kind.hook.startswith(plain)]
    if len(meant) != 1:
        raise UnknownName("kind of component", word, [kind.command for kind in KINDS])
    return meant[0]


@cache
def contract(kind: Kind) -> type:
    """Import the class that a kind's components extend."""
    return import_class(kind.contract)


def fulfilling(found: object, kind: Kind, name: str) -> type:
    """Return the class, or refuse what is not a concrete class of this kind."""
    if not (isinstance(found, type) and issubclass(found, contract(kind))):
        raise SSLKitError(f"{name} is not a {kind.singular}: it does not extend {kind.contract.replace(':', '.')}")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise SSLKitError(f"{name} is not a whole {kind.singular}: it does not define {', '.join(missing)}")
    return found


def import_class(path: str, prefix: str = "") -> type:
    """Import ``package.module:Class`` or ``package.module.Class``.

    Raises:
        SSLKitError: there is no such module or class, or the module fails to import.
    """
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: type = getattr(importlib.import_module(module), name)
    except AttributeError as error:
        classes = [key for key, value in vars(sys.modules[module]).items() if isinstance(value, type)]
        raise SSLKitError(f"{prefix}{module} has no class {name!r}.{did_you_mean(name, classes)}") from error
    except Exception as error:
        raise SSLKitError(f"{prefix}cannot import {path}: {type(error).__name__}: {error}") from error
    return found


def class_docstring(module: str, name: str) -> str:
    """Read a class's docstring from its source, importing nothing; empty where it cannot be found."""
    spec = _class_source(module, name)
    return (spec and ast.get_docstring(spec)) or ""


def class_fields(module: str, name: str) -> list[str]:
    """Read the names of a dataclass's fields from its source, importing nothing."""
    spec = _class_source(module, name)
    fields = [item.target for item in spec.body if isinstance(item, ast.AnnAssign)] if spec else []
    return [target.id for target in fields if isinstance(target, ast.Name)]


def _class_source(module: str, name: str) -> ast.ClassDef | None:
    source = source_of(module)
    body = _parsed(source).body if source else []
    return next((spec for spec in body if isinstance(spec, ast.ClassDef) and spec.name == name), None)


def source_of(module: str) -> Path | None:
    """Return a module's source file without importing its parents, or None."""
    if module in sys.modules:
        return Path(file) if (file := getattr(sys.modules[module], "__file__", None)) else None
    top, *parts = re.split(r"\.", module)
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    roots = [Path(place).joinpath(*parts) for place in spec.submodule_search_locations or ()]
    candidates = [file for root in roots for file in (root.with_name(f"{root.name}.py"), root / "__init__.py")]
    if not parts and spec.origin:
        candidates.insert(0, Path(spec.origin))
    return next((file for file in candidates if file.is_file()), None)


@cache
def _parsed(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))
