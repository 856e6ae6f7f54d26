"""What the code imports is what pyproject.toml declares, and its tested set holds all that uv installs."""

import ast
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
PLUGINS = sorted(file.parent for file in ROOT.glob("plugins/*/pyproject.toml"))
DISTRIBUTIONS = packages_distributions()


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(project: Path, *, extras: bool = False, groups: bool = False) -> set[str]:
    """The distributions that a project asks for."""
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    requirements = list(settings["project"]["dependencies"])
    if extras:
        requirements += [r for extra in settings["project"].get("optional-dependencies", {}).values() for r in extra]
    if groups:
        requirements += [r for group in settings.get("dependency-groups", {}).values() for r in group]
    return {normalized(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements}


def imports(files: Iterable[Path], *, at_once: bool = False) -> Iterator[tuple[str, Path]]:
    """Each module from outside that files import, or import at once when they are imported, by its first name."""
    for file in files:
        for node in walk(ast.parse(file.read_text(encoding="utf-8")), into_functions=not at_once):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names:
                yield name, file


def walk(node: ast.AST, into_functions: bool) -> Iterator[ast.AST]:
    yield node
    if into_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in ast.iter_child_nodes(node):
            yield from walk(child, into_functions)


def undeclared(found: Iterable[tuple[str, Path]], names: set[str]) -> list[str]:
    """The imports that none of these distributions brings."""
    return [
        f"{file.name} imports {module}"
        for module, file in found
        if not {normalized(name) for name in DISTRIBUTIONS.get(module, [module])} & names
    ]


def sources(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.py"))
    assert files
    return files


def test_the_package_declares_what_it_imports():
    files = sources(ROOT / "sslkit")
    assert undeclared(imports(files), declared(ROOT, extras=True) | {"sslkit"}) == []
    assert undeclared(imports(files, at_once=True), declared(ROOT) | {"sslkit"}) == []  # extras may be missing


def test_the_package_imports_what_it_declares():
    modules = {module for module, _ in imports(sources(ROOT / "sslkit"))}
    assert declared(ROOT) - {normalized(name) for m in modules for name in DISTRIBUTIONS.get(m, [])} == set()


def test_the_tests_declare_what_they_import():
    files = sources(ROOT / "tests")
    siblings = {normalized(file.stem) for file in files}
    names = declared(ROOT, extras=True, groups=True) | siblings | {"sslkit"}
    assert undeclared(imports(files), names) == []


@pytest.mark.parametrize("project", PLUGINS, ids=lambda project: project.name)
def test_a_plugin_declares_what_it_imports(project):
    own = normalized(project.name)
    package, tests = sources(project / project.name.replace("-", "_")), sources(project / "tests")
    assert undeclared(imports(package), declared(project) | {own}) == []
    assert undeclared(imports(tests), declared(project, groups=True) | {own}) == []


def test_an_undeclared_import_is_found_wherever_it_stands(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import os.path\nfrom . import near\ntry:\n    from yaml.nodes import Node\nexcept ImportError: pass\n"
        "class C:\n    def f(self):\n        import PIL.Image as i, none_such\n"
    )
    found = list(imports([file]))
    assert sorted(name for name, _ in found) == ["PIL", "none_such", "yaml"]
    assert list(imports([file], at_once=True)) == [("yaml", file)]
    assert undeclared(found, {"pyyaml", "pillow"}) == ["module.py imports none_such"]
    assert undeclared(found, {"pyyaml", "pillow", "none-such"}) == []


def the_tool():
    spec = importlib.util.spec_from_file_location("tested_set", ROOT / ".ci/tested_set.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tested_set_is_what_uv_resolves():
    pins = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["uv"]
    if "constraint-dependencies" not in pins or not (ROOT / "uv.lock").exists():
        pytest.skip("run on other versions, or not by uv")
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    resolved = {f"{package['name']}=={package['version']}" for package in lock if "registry" in package["source"]}
    pinned = {pin.partition(" ;")[0] for pin in pins["constraint-dependencies"]}
    assert pinned == resolved, "renew the tested set: python3 .ci/tested_set.py renew"


def test_the_tested_set_can_be_lifted(tmp_path, monkeypatch):
    module = the_tool()
    pins = ["b==2 ; python_version >= '3.12'", "b==1 ; python_version < '3.12'", "a==3 ; sys_platform == 'linux'"]
    block = module._array("constraint-dependencies", pins)
    assert tomllib.loads(block) == {"constraint-dependencies": ["a==3", pins[1], pins[0]]}
    (tmp_path / "here").mkdir()
    (tmp_path / "here/pyproject.toml").write_text(f"[tool.uv]\nx = 1\n{module.BEGIN}{block}{module.END}y = 2\n")
    monkeypatch.setattr(module, "ROOT", tmp_path / "here")
    listed = SimpleNamespace(stdout="pyproject.toml\0")
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **options: listed)
    lifted = module.lift(tmp_path / "there")
    assert (lifted / "pyproject.toml").read_text() == "[tool.uv]\nx = 1\ny = 2\n"
    with pytest.raises(SystemExit, match="has no lines"):
        module.split("[tool.uv]\n")
