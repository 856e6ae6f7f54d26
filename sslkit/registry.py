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

from sslkit.errors import SSLKitError, UnknownName, did_you_mean, shown
from sslkit.hookspecs import KINDS, Kind


@dataclass(frozen=True)
class Entry:
    """One registered component.

    Args:
        kind: hook name of its kind ("losses").
        target: ``package.module:Class``, or the class.
        plugin: name of the plugin that offers it.
        origin: package and version of the plugin, or its file.
    """

    kind: str
    target: str | type
    plugin: str
    origin: str

    @property
    def path(self) -> str:
        """The class as ``package.module:Class``."""
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
            SSLKitError: it cannot be imported, or is not a concrete class of its kind.
        """
        found = import_class(self.path) if isinstance(self.target, str) else self.target
        return concrete_class(found, kind_of(self.kind), f"{self.name} of {self.origin}")


class Registry:
    """Components by kind and class name.

    A name that two plugins offer is ambiguous: `get` refuses it and names both origins.

    Args:
        entries: the first components.
        allowed: modules and packages that recipes may name classes of by dotted path, although no plugin offers them.
    """

    def __init__(self, entries: Iterable[Entry] = (), allowed: Iterable[str] = ()) -> None:
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        self.allowed = tuple(allowed)
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        """Add a component; of a name that is taken, keep both, so that `get` can name both origins."""
        self._entries.setdefault((entry.kind, entry.name), []).append(entry)

    def find(self, kind: str, name: str) -> Entry | None:
        """Return the first component of this name, or None."""
        return next(iter(self._entries.get((kind, name), ())), None)

    def entries(self, kind: str) -> list[Entry]:
        """Return the components of a kind, sorted by name; of a name offered twice, the first."""
        return [same[0] for (k, _), same in sorted(self._entries.items(), key=lambda item: item[0]) if k == kind]

    def names(self, kind: str) -> list[str]:
        """Return the class names of a kind, sorted."""
        return [entry.name for entry in self.entries(kind)]

    def get(self, kind: str, name: str, where: str = "") -> type:
        """Return the class of a component.

        Args:
            kind: hook name of the kind.
            name: a class name, or ``package.module.Class`` of a class that a plugin offers, that is imported already,
                or whose module is in ``allowed``.
            where: recipe key that names it, for the message.

        Raises:
            UnknownName: no plugin offers the name.
            SSLKitError: two plugins offer it, it may not or cannot be imported, or it is not a concrete class of the
                kind.
        """
        prefix = f"{where}: " if where else ""
        if "." in name or ":" in name:
            return self._by_path(kind, name, prefix)
        same = self._entries.get((kind, name), [])
        if not same:
            raise UnknownName(kind_of(kind).singular, name, self.names(kind), where)
        if len(same) > 1:
            raise SSLKitError(
                f"{prefix}{name} is offered by {' and by '.join(entry.origin for entry in same)}. Set "
                f"SSLKIT_DISABLE_PLUGINS={same[-1].plugin} to leave one out, or write the dotted path of one."
            )
        return same[0].load()

    def _by_path(self, kind: str, path: str, prefix: str) -> type:
        """Return the class of a dotted path, which may be a stranger's: only a module that is trusted is imported."""
        dotted = path.replace(":", ".")
        same = self._entries.get((kind, dotted.rpartition(".")[2]), ())
        if offered := next((entry for entry in same if entry.path.replace(":", ".") == dotted), None):
            return offered.load()
        module = dotted.rpartition(".")[0]
        if module not in sys.modules and not any(f"{module}.".startswith(f"{trusted}.") for trusted in self.allowed):
            raise SSLKitError(
                f"{prefix}no installed plugin offers {shown(path)}, and a recipe alone does not choose what is "
                f"imported. If you trust that module, add\n  --allow {module}"
            )
        return concrete_class(import_class(path, prefix), kind_of(kind), f"{prefix}{path}")

    def short_name(self, kind: str, found: type) -> str:
        """Return the name of a class in a recipe: its class name if it is registered under it, else its dotted path."""
        entry = self.find(kind, found.__name__)
        here = f"{found.__module__}:{found.__qualname__}"
        return found.__name__ if entry and entry.path == here else here.replace(":", ".")


def kind_of(word: str) -> Kind:
    """Return a kind by its hook name, its command-line name, or the beginning of one ("collapse").

    Raises:
        UnknownName: no kind matches, or several do.
    """
    plain = word.lower().replace("-", "_")
    matching = [kind for kind in KINDS if plain and kind.hook.startswith(plain)]
    if len(matching) != 1:
        raise UnknownName("kind of component", word, [kind.command for kind in KINDS])
    return matching[0]


@cache
def contract(kind: Kind) -> type:
    """Import the abstract class of a kind."""
    return import_class(kind.contract)


def concrete_class(found: object, kind: Kind, name: str) -> type:
    """Return an object if it is a concrete class of a kind.

    Args:
        found: the object.
        kind: the kind.
        name: name of the object in the message.

    Raises:
        SSLKitError: it does not extend the contract, or has abstract methods.
    """
    if not (isinstance(found, type) and issubclass(found, contract(kind))):
        raise SSLKitError(f"{name} is not a {kind.singular}: it does not extend {kind.contract.replace(':', '.')}")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise SSLKitError(f"{name} is not a complete {kind.singular}: it does not define {', '.join(missing)}")
    # Here, since it imports torch, which listing components does not need.
    from sslkit.checks.classes import check_class

    check_class(found, contract(kind), name)
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
    # A module of a plugin may fail with anything while it is imported.
    except Exception as error:
        raise SSLKitError(f"{prefix}cannot import {path}: {type(error).__name__}: {error}") from error
    return found


def class_docstring(module: str, name: str) -> str:
    """Return the docstring of a class from its source, without importing it; empty if it is not found."""
    spec = _class_source(module, name)
    return (spec and ast.get_docstring(spec)) or ""


def class_fields(module: str, name: str) -> list[str]:
    """Return the field names of a dataclass from its source, without importing it."""
    spec = _class_source(module, name)
    fields = [item.target for item in spec.body if isinstance(item, ast.AnnAssign)] if spec else []
    return [target.id for target in fields if isinstance(target, ast.Name)]


def _class_source(module: str, name: str) -> ast.ClassDef | None:
    source = source_of(module)
    body = _parsed(source).body if source else []
    return next((spec for spec in body if isinstance(spec, ast.ClassDef) and spec.name == name), None)


def source_of(module: str) -> Path | None:
    """Return the source file of a module without importing anything, None if it is not found."""
    if module in sys.modules:
        return Path(file) if (file := getattr(sys.modules[module], "__file__", None)) else None
    top, *parts = re.split(r"\.", module)
    # The top package only: for a dotted name find_spec imports the parents.
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
