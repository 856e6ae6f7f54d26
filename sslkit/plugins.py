"""Load the package's own components, installed plugins, and single files; one that fails does not stop others."""

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

import pluggy

from sslkit import __version__, hookspecs
from sslkit.errors import DEBUG, SSLKitError, did_you_mean
from sslkit.hookspecs import GROUP, KINDS
from sslkit.registry import Entry, Registry

DISABLE = "SSLKIT_DISABLE_PLUGINS"
"""Environment variable: names of installed plugins to leave out, separated by commas, or ``all``."""

OWN = "sslkit"
"""The plugin that holds the package's own components."""

BUILTIN = "sslkit.builtin"


@dataclass
class Plugin:
    """One plugin, loaded or not.

    Args:
        name: its entry point's name, or its file.
        origin: the distribution and version that it came with, or its file.
        hooks: the hooks that it implements.
        error: what went wrong, with the traceback; empty where it loaded.
        cause: the exception behind it, if there was one.
        disabled: whether `SSLKIT_DISABLE_PLUGINS` left it out.
    """

    name: str
    origin: str
    hooks: tuple[str, ...] = ()
    error: str = ""
    cause: Exception | None = None
    disabled: bool = False

    @property
    def is_file(self) -> bool:
        """Whether it is a single file of ``--plugin`` rather than an installed one."""
        return self.name.endswith(".py")


@dataclass
class Plugins:
    """Every plugin that was found, and the components of those that loaded."""

    found: list[Plugin] = field(default_factory=list)
    registry: Registry = field(default_factory=Registry)
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))

    def __post_init__(self) -> None:
        self.manager.add_hookspecs(hookspecs)

    def load(self, plugin: Plugin, module: Callable[[], object]) -> Plugin:
        """Import a plugin and take its offers; what goes wrong is kept in ``plugin.error``."""
        self.found.append(plugin)
        try:
            entries = self._offers(plugin, module())
        except Exception as error:
            plugin.error, plugin.cause = _readable(error), error
            return plugin
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
            impls = [(c.name, impl) for c in callers for impl in c.get_hookimpls() if impl.plugin is module]
            offers = {hook: _targets(hook, impl.function()) for hook, impl in impls} or own_classes(module)
            if not offers:
                raise SSLKitError("it offers nothing: no function marked @sslkit.hookimpl")
            return [Entry(hook, t, plugin.name, plugin.origin) for hook, targets in offers.items() for t in targets]
        except Exception:
            self.manager.unregister(module)
            raise


def find_plugins() -> Plugins:
    """Load the package's own components and every installed plugin."""
    plugins = Plugins()
    plugins.load(Plugin(OWN, f"sslkit {__version__}"), lambda: importlib.import_module(BUILTIN))
    disabled = {name.strip() for name in os.environ.get(DISABLE, "").split(",") if name.strip()}
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
    """Return the plugins of this command: the installed ones and those of ``using``. Found once a process."""
    return _active.get(None) or _installed()


@contextmanager
def using(files: Sequence[Path | str]) -> Iterator[Plugins]:
    """Add plugin files while the block runs.

    Each file is a module with ``@sslkit.hookimpl`` functions, or one that just defines components.

    Raises:
        SSLKitError: a file is missing, fails to import or offers nothing.
    """
    if not files:
        yield active()
        return
    plugins = find_plugins()
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
    """Let a file be imported by its own name while the block runs; loader workers, started afresh, find it too.

    Raises:
        SSLKitError: there is no such file, or its name is another module's.
    """
    place = file.expanduser().resolve()
    name, folder = place.stem, str(place.parent)
    if not place.is_file():
        raise SSLKitError(f"--plugin {file}: there is no such file")
    if place.suffix != ".py" or not name.isidentifier():
        raise SSLKitError(f"--plugin {file}: a Python file is needed, named like a module (my_operator.py)")
    other = importlib.util.find_spec(name)
    if other and other.origin != str(place):
        raise SSLKitError(f"--plugin {file}: there is a module {name!r} already, {other.origin}; rename the file")
    sys.path.append(folder)
    importlib.invalidate_caches()
    try:
        yield name
    finally:
        sys.path.remove(folder)
        sys.modules.pop(name, None)


def own_classes(module: object) -> dict[str, list[str | type]]:
    """Return the components that a module itself defines, by hook."""
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == vars(module).get("__name__")]
    offers: dict[str, list[str | type]] = {}
    for kind in KINDS:
        place, _, name = kind.contract.partition(":")
        # A contract that nobody has imported has no subclass: torch stays out of a listing.
        base = getattr(sys.modules.get(place), name, None)
        if found := [c for c in classes if base and issubclass(c, base) and not inspect.isabstract(c)]:
            offers[kind.hook] = [*found]
    return offers


def _check_hook_names(manager: pluggy.PluginManager, module: object) -> None:
    """Refuse functions that are marked as hooks and answer none: pluggy itself passes over a misspelt name."""
    known = [kind.hook for kind in KINDS]
    for name in dir(module):
        options = manager.parse_hookimpl_opts(module, name)  # type: ignore[arg-type]
        if options and (options.get("specname") or name) not in known:
            raise SSLKitError(f"there is no hook {name!r}.{did_you_mean(name, known)}")


def _targets(hook: str, targets: object) -> list[str | type]:
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise SSLKitError(f"{hook}() must return a list, not {targets!r}")
    listed = list(targets)
    for target in listed:
        if not isinstance(target, type) and not (isinstance(target, str) and target.count(":") == 1):
            raise SSLKitError(f"{hook}() must return classes or 'package.module:Class', not {target!r}")
    return listed


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _readable(error: Exception) -> str:
    """Return a user's mistake as its sentence, anything else with its traceback."""
    return str(error) if isinstance(error, SSLKitError) else "".join(traceback.format_exception(error))


def _in_one_line(plugin: Plugin) -> str:
    """Say what went wrong in a plugin file, and on which of its lines."""
    if plugin.cause is None or isinstance(plugin.cause, SSLKitError):
        return plugin.error
    file = Path(plugin.origin).expanduser().resolve()
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(plugin.cause.__traceback__)]
    if isinstance(plugin.cause, SyntaxError):
        frames.append((plugin.cause.filename or "", plugin.cause.lineno))
    line = next((f"{file.name}:{line}: " for name, line in reversed(frames) if Path(name) == file), "")
    what = traceback.format_exception_only(plugin.cause)[-1].splitlines()[0]
    return f"{line}{what} ({DEBUG}=1 shows all)"
