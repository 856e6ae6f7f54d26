"""Plugins: the package's own components, installed packages, and single files; one that fails stops no other."""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FunctionType

import pluggy

from sslkit import __version__, hookspecs
from sslkit.errors import DEBUG, SSLKitError, did_you_mean
from sslkit.hookspecs import GROUP, KINDS
from sslkit.paths import local_path
from sslkit.registry import Entry, Registry

DISABLE = "SSLKIT_DISABLE_PLUGINS"
"""Environment variable: names of installed plugins to leave out, separated by commas, or ``all``."""

OWN = "sslkit"
"""Name of the plugin with the package's own components."""

BUILTIN = "sslkit.builtin"
"""Its module."""


@dataclass
class Plugin:
    """One plugin, loaded or not.

    Args:
        name: name of its entry point, or its file.
        origin: its package and version, or its file.
        hooks: names of the hooks that it implements.
        error: why it failed, with the traceback of an unexpected exception; empty if it did not.
        cause: the exception, if one was raised.
        disabled: whether ``SSLKIT_DISABLE_PLUGINS`` left it out.
    """

    name: str
    origin: str
    hooks: tuple[str, ...] = ()
    error: str = ""
    cause: BaseException | None = None
    disabled: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is a single file of ``--plugin`` rather than an installed one."""
        return self.name.endswith(".py")


@dataclass
class Plugins:
    """All plugins that were found, and the registry of the components of those that loaded."""

    found: list[Plugin] = field(default_factory=list)
    registry: Registry = field(default_factory=Registry)
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))

    def __post_init__(self) -> None:
        self.manager.add_hookspecs(hookspecs)

    def load(self, plugin: Plugin, module: Callable[[], object]) -> Plugin:
        """Import a plugin and register its components; a failure is recorded in ``plugin.error``.

        Args:
            plugin: description of the plugin; its hooks and its error are filled in.
            module: imports and returns its module.
        """
        self.found.append(plugin)
        try:
            entries = self._offers(plugin, module())
        except (Exception, SystemExit) as error:
            # A plugin that ends the program while it is imported would end every command.
            plugin.error, plugin.cause = _readable(error), error
            return plugin
        # Of a plugin with a taken name that name alone is registered, which makes it ambiguous; the rest is left out.
        for entry in entries:
            other = self.registry.find(entry.kind, entry.name)
            if other:
                plugin.error = f"{entry.name} in {entry.kind} is already offered by {other.origin}"
                self.registry.add(entry)
        if not plugin.error:
            for entry in entries:
                self.registry.add(entry)
        return plugin

    def _offers(self, plugin: Plugin, module: object) -> list[Entry]:
        self.manager.register(module, plugin.name)
        try:
            _check_hook_names(self.manager, module)
            callers = self.manager.get_hookcallers(module) or []
            plugin.hooks = tuple(sorted(caller.name for caller in callers))
            # Hooks are called one by one, not through `manager.hook`, so that each class keeps its origin.
            impls = [(c.name, impl) for c in callers for impl in c.get_hookimpls() if impl.plugin is module]
            offers = {hook: _targets(hook, impl.function()) for hook, impl in impls} or own_classes(module)
            if not offers:
                raise SSLKitError(f"it offers nothing: {_why_nothing(module)}")
            # Each once, though a list may repeat a class.
            named = dict.fromkeys((hook, target) for hook, targets in offers.items() for target in targets)
            entries = [Entry(hook, target, plugin.name, plugin.origin) for hook, target in named]
            for entry in entries:
                if not entry.name[:1].isupper():
                    raise SSLKitError(f"{entry.name} in {entry.kind}: names of classes in recipes begin with a capital")
                if isinstance(entry.target, type):
                    # What is named as text is looked at when a recipe names it, so that nothing is imported before.
                    entry.load()
            return entries
        except (Exception, SystemExit):
            self.manager.unregister(module)
            raise


def find_plugins() -> Plugins:
    """Load the package's own components and every installed plugin."""
    plugins = Plugins()
    # First, so that a plugin with a name of ours is the one that is reported.
    plugins.load(Plugin(OWN, f"sslkit {__version__}"), lambda: importlib.import_module(BUILTIN))
    disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",") if name.strip()}
    # Sorted: the order of entry points depends on the file system.
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        plugin = Plugin(point.name, _distribution(point))
        if disabled & {point.name, "all"}:
            plugin.disabled = True
            plugins.found.append(plugin)
        else:
            plugins.load(plugin, point.load)
    return plugins


_active: ContextVar[Plugins] = ContextVar("plugins")
_installed = cache(find_plugins)


def active() -> Plugins:
    """Return the plugins in effect: the installed ones, loaded once per process, and inside `using` its files."""
    return _active.get(None) or _installed()


@contextmanager
def using(files: Sequence[Path | str], allowed: Sequence[str] = ()) -> Iterator[Plugins]:
    """Add plugin files to the plugins in effect inside the block.

    Args:
        files: Python files with ``@sslkit.hookimpl`` functions, or with classes of components alone.
        allowed: modules and packages that recipes may name classes of by dotted path.

    Raises:
        SSLKitError: a file is missing, fails to import or offers nothing.
    """
    if not files and not allowed:
        yield active()
        return
    # Not the cached ones, which would keep the components of the files after the block.
    plugins = find_plugins()
    plugins.registry.allowed = tuple(allowed)
    with ExitStack() as stack:
        for file in files:
            name = stack.enter_context(importable(Path(file)))
            plugin = plugins.load(Plugin(str(file), str(file)), partial(importlib.import_module, name))
            if plugin.error:
                raise SSLKitError(f"--plugin {file}: {_in_one_line(plugin)}") from plugin.cause
        stack.callback(_active.reset, _active.set(plugins))
        yield plugins


@contextmanager
def importable(file: Path) -> Iterator[str]:
    """Make a file importable by its name inside the block, and yield the name.

    Its folder is put on ``sys.path``, which spawned loader workers inherit: they unpickle its classes by that name.

    Raises:
        SSLKitError: there is no such file, or another module has its name.
    """
    place = local_path(file).resolve()
    name, folder = place.stem, str(place.parent)
    if not place.is_file():
        raise SSLKitError(f"--plugin {file}: there is no such file")
    if place.suffix != ".py" or not name.isidentifier():
        raise SSLKitError(f"--plugin {file}: a Python file is needed, named like a module (my_operator.py)")
    other = importlib.util.find_spec(name)
    if other and other.origin != str(place):
        raise SSLKitError(f"--plugin {file}: there is a module {name!r} already, {other.origin}; rename the file")
    # At the end, so that no neighbour of the file hides an installed module.
    sys.path.append(folder)
    # A file written a moment ago may be missing from the import system's list of the folder.
    importlib.invalidate_caches()
    try:
        yield name
    finally:
        sys.path.remove(folder)
        sys.modules.pop(name, None)


def own_classes(module: object) -> dict[str, list[str | type]]:
    """Return the component classes that a module defines itself, by hook; abstract ones only without a subclass there.

    An abstract class with subclasses is their common base; one without is a component that lacks a method.
    """
    classes = _classes(module)
    offers: dict[str, list[str | type]] = {}
    for kind in KINDS:
        contract_module, _, name = kind.contract.partition(":")
        # A contract that is not imported has no subclasses; importing it would import torch.
        base = getattr(sys.modules.get(contract_module), name, None)
        found = [c for c in classes if base and issubclass(c, base)]
        leaves = [c for c in found if not (inspect.isabstract(c) and _is_base(c, found))]
        if leaves:
            offers[kind.hook] = [*leaves]
    return offers


def _classes(module: object) -> list[type]:
    """Return the classes that a module defines itself."""
    return [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == vars(module).get("__name__")]


def _is_base(cls: type, classes: Iterable[type]) -> bool:
    return cls.__name__.startswith("_") or any(other is not cls and issubclass(other, cls) for other in classes)


def _why_nothing(module: object) -> str:
    """Return why a module offers nothing, and what its author probably forgot."""
    names = [cls.__name__ for cls in _classes(module) if not cls.__name__.startswith("_")]
    marked = "no function marked @sslkit.hookimpl"
    if not names:
        return f"{marked}, and no class that extends a contract of sslkit.contracts"
    contracts = ", ".join(kind.contract.rpartition(":")[2] for kind in KINDS)
    return f"{marked}, and {' and '.join(names)} extends no contract of sslkit ({contracts})"


def _check_hook_names(manager: pluggy.PluginManager, module: object) -> None:
    """Refuse hook implementations of an unknown name, which pluggy ignores, and hooks that are not marked.

    Raises:
        SSLKitError: naming the function, or the nearest hooks. pluggy's ``check_pending`` would not name them.
    """
    known = [kind.hook for kind in KINDS]
    for name, value in vars(module).items():
        is_own = isinstance(value, FunctionType) and value.__module__ == vars(module).get("__name__")
        if name in known and is_own and not manager.parse_hookimpl_opts(module, name):  # type: ignore[arg-type]
            raise SSLKitError(f"its function {name}() is not marked @sslkit.hookimpl, so it would offer nothing")
    for name in dir(module):
        options = manager.parse_hookimpl_opts(module, name)  # type: ignore[arg-type]
        if options and (options.get("specname") or name) not in known:
            raise SSLKitError(f"there is no hook {name!r}.{did_you_mean(name, known)}")


def _targets(hook: str, targets: object) -> list[str | type]:
    """Return what a hook returned, as a list of classes and of strings ``package.module:Class``."""
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise SSLKitError(f"{hook}() must return a list, not {targets!r}")
    listed = list(targets)
    for target in listed:
        if not isinstance(target, type) and not (isinstance(target, str) and target.count(":") == 1):
            raise SSLKitError(f"{hook}() must return classes or 'package.module:Class', not {target!r}")
    return listed


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _readable(error: BaseException) -> str:
    """Return the message of an error that a user can fix, and the traceback of any other exception."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)}) while it was loaded"
    return str(error) if isinstance(error, SSLKitError) else "".join(traceback.format_exception(error))


def _in_one_line(plugin: Plugin) -> str:
    """Return why a plugin file failed, on one line, with the number of the line in the file."""
    if plugin.cause is None or isinstance(plugin.cause, SSLKitError):
        return plugin.error
    file = local_path(plugin.origin).resolve()
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(plugin.cause.__traceback__)]
    if isinstance(plugin.cause, SyntaxError):
        frames.append((plugin.cause.filename or "", plugin.cause.lineno))
    line = next((f"{file.name}:{line}: " for name, line in reversed(frames) if Path(name) == file), "")
    what = plugin.error
    if not isinstance(plugin.cause, SystemExit):
        what = traceback.format_exception_only(plugin.cause)[-1].splitlines()[0]
    return f"{line}{what} ({DEBUG}=1 shows all)"
