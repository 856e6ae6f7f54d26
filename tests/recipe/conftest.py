"""A recipe of the tests' own components, and files of it."""

from pathlib import Path

import pytest

from sslkit import plugins
from sslkit.recipe import load

TINY = Path(__file__).parents[1] / "tiny_parts.py"
BASE = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _tiny_parts():
    with plugins.using([TINY]):
        yield


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe file, the tiny recipe unless told otherwise."""

    def write_recipe(text: str = BASE, name: str = "some.yaml") -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_recipe


@pytest.fixture
def base(write):
    """Return a function that loads the tiny recipe with overrides."""
    file = write()
    return lambda *overrides: load(file, overrides)
