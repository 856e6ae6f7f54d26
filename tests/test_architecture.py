"""The layers of the package: a module imports only from lower layers, or from what stands before it in its own line.

    python tests/test_architecture.py

prints the table of docs/architecture.md.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "sslkit"

COMPONENTS = [
    "views",
    "backbones",
    "heads",
    "teachers",
    "collapse",
    "losses",
    "optimizers",
    "data",
    "evaluators",
    "callbacks",
]
# The lowest layer first. Each string is a line of names; lines of one layer never import one another.
LAYERS = [
    ["errors hashing paths types clock recommendation schedules distributed snapshot device progress"],
    ["contracts checks"],
    ["hookspecs registry plugins"],
    COMPONENTS,
    ["method", "evaluation", "builtin"],
    ["recipe"],
    ["explain", "run_folder"],
    ["checkpoint", "health"],
    ["training", "exporting"],
    ["launch"],
    ["cli __main__"],
]
PLACES = {
    unit: (layer, line, position)
    for layer, lines in enumerate(LAYERS)
    for line, names in enumerate(lines)
    for position, unit in enumerate(names.split())
}
MOST_MODULES = 16
"""Modules of a folder, beside its ``__init__``."""

VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
FACADE = "sslkit itself"


def may_import(here: str, there: str) -> bool:
    if here == there:
        return True
    if here not in PLACES or there not in PLACES:
        return False
    (layer, line, position), (other_layer, other_line, other_position) = PLACES[here], PLACES[there]
    if layer != other_layer:
        return other_layer < layer
    return line == other_line and other_position < position


def unit_of(path: Path, root: Path) -> str:
    """Return the folder of the package, or the module at its top, that a file belongs to."""
    return path.relative_to(root).with_suffix("").parts[0]


def imported_modules(path: Path, root: Path) -> list[str]:
    """Return the dotted names that a file imports, wherever in the file, absolutely or relatively."""
    names = []
    package = (root.name, *path.relative_to(root).parts[:-1])
    for spec in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(spec, ast.Import):
            names += [alias.name for alias in spec.names]
        elif isinstance(spec, ast.ImportFrom):
            start = ".".join(package[: len(package) + 1 - spec.level]) if spec.level else ""
            module = ".".join(part for part in (start, spec.module) if part)
            names += [f"{module}.{alias.name}" for alias in spec.names if alias.name != "__version__"]
    return [name for name in names if name.split(".")[0] == root.name]


def imported_units(path: Path, root: Path) -> set[str]:
    inside = [name.split(".") for name in imported_modules(path, root)]
    exists = {unit_of(p, root) for p in root.rglob("*.py")} | set(PLACES)
    return {parts[1] if len(parts) > 1 and parts[1] in exists else FACADE for parts in inside}


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted(root.rglob("*.py")):
        here = unit_of(path, root)
        if here == "__init__":  # the lazy facade may offer anything
            continue
        found += [
            f"{path.relative_to(root)} may not import {there}"
            for there in sorted(imported_units(path, root))
            if not may_import(here, there)
        ]
    return found


def circles(root: Path) -> list[str]:
    """Return the modules that import one another in a circle."""
    files = {".".join((root.name, *p.relative_to(root).with_suffix("").parts)): p for p in root.rglob("*.py")}
    edges = {}
    for name, path in files.items():
        wanted = {*imported_modules(path, root)}
        wanted |= {module.rpartition(".")[0] for module in wanted}
        edges[name] = {module for module in wanted if module in files and module != name}
    while free := [name for name, wanted in edges.items() if not wanted & {*edges}]:
        for name in free:
            del edges[name]
    needed = {module for wanted in edges.values() for module in wanted}
    return sorted(name for name in edges if name in needed)


def table() -> str:
    """Return the layers as docs/architecture.md shows them, the highest first."""
    rows = [f"    {layer:2d}  {'  |  '.join(lines)}" for layer, lines in reversed([*enumerate(LAYERS)])]
    return "\n".join(rows)


def test_imports_go_down():
    assert len(list(SOURCE.rglob("*.py"))) > 20
    assert violations(SOURCE) == []


def test_no_modules_import_one_another_in_a_circle():
    assert circles(SOURCE) == []


def test_a_circle_is_found(tmp_path):
    for name, wanted in {"a": "b", "b": "c", "c": "a", "d": "a"}.items():
        file = tmp_path / "sslkit" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"from sslkit.{wanted} import something\n")
    assert circles(tmp_path / "sslkit") == ["sslkit.a", "sslkit.b", "sslkit.c"]


def test_every_module_belongs_to_a_layer_under_a_telling_name():
    units = {unit_of(path, SOURCE) for path in SOURCE.rglob("*.py")} - {"__init__"}
    assert units == set(PLACES)
    assert not {path.stem for path in SOURCE.rglob("*.py")} & VAGUE


def test_no_folder_is_large():
    folders = {path.parent for path in SOURCE.rglob("*.py")} - {SOURCE}
    sizes = {folder.name: sum(file.stem != "__init__" for file in folder.glob("*.py")) for folder in folders}
    assert {name: size for name, size in sizes.items() if size > MOST_MODULES} == {}


def test_every_module_has_its_test_file_and_every_test_file_its_module():
    """Properties of several modules, comparisons with references, and checks of a GPU have folders of their own."""
    tests = ROOT / "tests"
    modules = {path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")}
    expected = {path.with_name(f"test_{path.name}") for path in modules if not path.stem.startswith("__")}
    found = {path.relative_to(tests) for path in tests.rglob("test_*.py")}
    mirrored = {path for path in found if path.parts[0] not in ("properties", "parity", "gpu")}
    # At the top stand tests of the repository's other files, too: docs, recipes, pyproject.toml.
    others = {path for path in mirrored - expected if len(path.parts) > 1}
    assert (expected - found, others) == (set(), set())


def test_the_documentation_shows_the_layers():
    assert table() in (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_components_have_public_modules():
    """Private modules are invisible to the recipe's short names."""
    for unit in COMPONENTS:
        private = [p.name for p in (SOURCE / unit).rglob("_*.py") if p.name != "__init__.py"]
        assert not private


@pytest.mark.parametrize(
    ("file", "source", "reached"),
    [
        ("types.py", "from sslkit.contracts import Head", "contracts"),
        ("contracts.py", "import sslkit.registry", "registry"),
        ("errors.py", "from . import clock", "clock"),
        ("collapse/centering.py", "from sslkit.losses import CrossEntropy", "losses"),
        ("collapse/centering.py", "from ..losses.cross_entropy import CrossEntropy", "losses"),
        ("collapse/centering.py", "from .. import losses", "losses"),
        ("views/crop.py", "def late():\n    import sslkit.method.step as step", "method"),
        ("hookspecs.py", "from sslkit.registry import Registry", "registry"),
        ("method/step.py", "from sslkit.recipe import Recipe", "recipe"),
        ("losses/new.py", "from sslkit import CrossEntropy", FACADE),
        ("cli/main.py", "from sslkit import __main__", "__main__"),
        ("unheard_of.py", "from sslkit.types import Views", "types"),
    ],
)
def test_the_test_sees_a_violation(tmp_path, file, source, reached):
    root = tmp_path / "sslkit"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(source)
    assert violations(root) == [f"{file} may not import {reached}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("clock.py", "from sslkit.errors import RecipeError"),
        ("plugins.py", "from sslkit import __version__, registry"),
        ("collapse/batch_softmax.py", "from sslkit.collapse.sinkhorn_knopp import balance"),
        ("collapse/batch_softmax.py", "from .sinkhorn_knopp import balance"),
        ("training/trainer.py", "from ..method.step import train_step\nimport torch\nfrom . import step"),
        ("__main__.py", "from sslkit.cli.main import main"),
        ("__init__.py", "from sslkit.method.step import train_step"),
    ],
)
def test_the_test_lets_right_imports_pass(tmp_path, file, source):
    root = tmp_path / "sslkit"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(source)
    assert violations(root) == []


if __name__ == "__main__":
    print(table())
