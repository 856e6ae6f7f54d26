"""A file imports only from lower floors, or from earlier in its own line."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "sslkit"

COMPONENTS = ["views", "backbones", "heads", "teachers", "collapse", "losses", "data", "evaluators", "callbacks"]
# Each tuple is a line: what stands later may import what stands earlier. Lines of one floor never meet.
FLOORS = [
    [("errors", "hashing", "types", "clock", "setting", "schedules", "distributed")],
    [("contracts", "sections")],
    [("hookspecs", "registry", "plugins")],
    [(kind,) for kind in COMPONENTS],
    [("fit", "student_teacher"), ("evaluate",), ("builtin",)],
    [("training",)],
    [("recipe",)],
    [("ablate",), ("doctor",), ("exporting",)],
    [("cli", "__main__")],
]
PLACES = {
    unit: (floor, line, position)
    for floor, lines in enumerate(FLOORS)
    for line, units in enumerate(lines)
    for position, unit in enumerate(units)
}
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
FACADE = "sslkit itself"


def may_import(here: str, there: str) -> bool:
    if here == there:
        return True
    if here not in PLACES or there not in PLACES:
        return False
    (floor, line, position), (other_floor, other_line, other_position) = PLACES[here], PLACES[there]
    if floor != other_floor:
        return other_floor < floor
    return line == other_line and other_position < position


def unit_of(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").parts[0]


def imported_units(path: Path, root: Path) -> set[str]:
    """The units of the package that a file imports, wherever in the file, absolutely or relatively."""
    names = []
    package = (root.name, *path.relative_to(root).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package[: len(package) + 1 - node.level]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            offered = [f"{module}.{alias.name}" for alias in node.names if alias.name != "__version__"]
            names += offered if module == root.name else [module]
    inside = [name.split(".") for name in names if name.split(".")[0] == root.name]
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


def test_imports_go_down():
    assert len(list(SOURCE.rglob("*.py"))) > 20
    assert violations(SOURCE) == []


def test_every_file_stands_on_a_floor_under_a_telling_name():
    units = {unit_of(path, SOURCE) for path in SOURCE.rglob("*.py")} - {"__init__"}
    assert units <= set(PLACES)
    assert not {path.stem for path in SOURCE.rglob("*.py")} & VAGUE


def test_components_have_public_modules():
    """Private modules are invisible to the recipe's short names."""
    for unit in COMPONENTS:
        private = [p.name for p in (SOURCE / unit).rglob("_*.py") if p.name != "__init__.py"]
        assert not private


@pytest.mark.parametrize(
    ("file", "source", "reached"),
    [
        ("types.py", "from sslkit.contracts import Head", "contracts"),
        ("contracts.py", "import sslkit.sections", "sections"),
        ("errors.py", "from . import clock", "clock"),
        ("collapse/centering.py", "from sslkit.losses import CrossEntropy", "losses"),
        ("collapse/centering.py", "from ..losses.cross_entropy import CrossEntropy", "losses"),
        ("collapse/centering.py", "from .. import losses", "losses"),
        ("views/crop.py", "def late():\n    import sslkit.training.step as step", "training"),
        ("evaluate.py", "from sslkit.student_teacher import Branch", "student_teacher"),
        ("evaluate.py", "from sslkit import student_teacher", "student_teacher"),
        ("hookspecs.py", "from sslkit.registry import Registry", "registry"),
        ("training/step.py", "from sslkit.recipe import Recipe", "recipe"),
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
        ("sections.py", "from sslkit.contracts import Head"),
        ("plugins.py", "from sslkit import __version__, registry"),
        ("collapse/batch_softmax.py", "from sslkit.collapse.sinkhorn_knopp import balance"),
        ("collapse/batch_softmax.py", "from .sinkhorn_knopp import balance"),
        ("training/loop.py", "from ..student_teacher import Branch\nimport torch\nfrom . import step"),
        ("__main__.py", "from sslkit.cli.main import main"),
        ("__init__.py", "from sslkit.training.step import train_step"),
    ],
)
def test_the_test_lets_right_imports_pass(tmp_path, file, source):
    root = tmp_path / "sslkit"
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text(source)
    assert violations(root) == []
