"""Sections of a model card on training: data, recipe and citations."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sslkit import __version__
from sslkit.errors import SSLKitError
from sslkit.hookspecs import KINDS
from sslkit.plugins import active
from sslkit.recipe.files import read_yaml
from sslkit.registry import class_docstring

LEARNING = ("method", "views", "optimization")
"""Sections of a recipe whose components implement papers to cite."""

CITATION = f"""\
```bibtex
@software{{sslkit,
  author = {{The sslkit authors}},
  title = {{sslkit: self-supervised learning for images as one student-teacher step}},
  version = {{{__version__}}}
}}
```"""


def training(folder: Path) -> list[str]:
    """Return the sections on training and citation as Markdown; for a backbone without a run, only the citation.

    Raises:
        SSLKitError: a file of the folder cannot be read.
    """
    file = folder / "recipe.yaml"
    if not file.exists():
        return ["## Citation", CITATION]
    recipe = without_places(read_yaml(file))
    versions = (read(folder / "environment.json", json.loads) or {}).get("versions", {})
    images = (recipe.get("data") or {}).get("train")
    images = yaml.safe_dump(images, default_flow_style=True, sort_keys=False, width=10_000).partition("\n")[0]
    text = yaml.safe_dump(recipe, default_flow_style=None, sort_keys=False, width=110)
    return [
        "## Training",
        f"On the images `{images}`, with {', '.join(f'{name} {number}' for name, number in versions.items())}.",
        f"<details><summary>The whole recipe</summary>\n\n```yaml\n{text}```\n\n</details>",
        "## Citation",
        CITATION,
        "The papers that the recipe's components name:",
        "\n".join(f"- {name}: {', '.join(links)}" for name, links in papers(recipe).items()),
    ]


def papers(recipe: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return links to the papers that are cited in the docstrings of a recipe's components, by component name."""
    # Any key or string may name a component; the registry decides which do.
    names = sorted({word for section in LEARNING for word in _words(recipe.get(section))})
    entries = [entry for name in names for kind in KINDS if (entry := active().registry.find(kind.hook, name))]
    found = {}
    for entry in entries:
        module, _, name = entry.path.partition(":")
        numbers = dict.fromkeys(re.findall(r"arXiv:(\d{4}\.\d{4,5})", class_docstring(module, name)))
        if numbers:
            found[name] = [f"[arXiv:{number}](https://arxiv.org/abs/{number})" for number in numbers]
    return found


def without_places(value: Any) -> Any:
    """Return a recipe with absolute paths shortened to their last name, so that a card does not publish folders."""
    if isinstance(value, Mapping):
        return {key: without_places(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_places(item) for item in value]
    is_place = isinstance(value, str) and (Path(value).is_absolute() or value.startswith("~"))
    return Path(value).name if is_place else value


def read(path: Path, reader: Callable[[str], Any]) -> Any:
    """Return the content of a file of a run, or None if it does not exist.

    Args:
        path: of the file.
        reader: parses its text.

    Raises:
        SSLKitError: the file cannot be read or parsed.
    """
    try:
        return reader(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError) as error:
        raise SSLKitError(f"{path} cannot be read: {error}") from error


def _words(value: Any) -> Iterator[str]:
    """Yield every key and every string of nested plain data."""
    if isinstance(value, str):
        yield value
    items = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in items:
        yield from _words(item)
