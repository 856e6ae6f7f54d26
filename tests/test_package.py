"""The names at the top of the package, and the README that shows them."""

import ast
import re
from pathlib import Path

import pytest

import sslkit

ROOT = Path(__file__).parents[1]


def test_every_public_name_can_be_imported():
    for name in sslkit.__all__:
        assert getattr(sslkit, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="DINOhead"):
        sslkit.DINOhead  # noqa: B018


def test_the_stub_names_what_the_package_offers_from_the_same_places():
    tree = ast.parse((ROOT / "sslkit/__init__.pyi").read_text())
    imports = [spec for spec in tree.body if isinstance(spec, ast.ImportFrom)]
    assert {alias.name: spec.module for spec in imports for alias in spec.names} == sslkit._PLACES


def test_the_readme_example_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], "README.md", "exec"), {})
    losses = [float(line) for line in capsys.readouterr().out.split()]
    # Balanced targets over 512 prototypes: the first losses lie near ln 512.
    assert len(losses) == 3
    assert all(4 < loss < 9 for loss in losses)


def test_the_readme_names_only_recipes_and_files_that_exist():
    text = (ROOT / "README.md").read_text()
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert set(re.findall(r"sslkit (?:train|explain) ([a-z][\w-]+)", text)) <= recipes
    links = re.findall(r"\]\(((?!http)[^)#]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
