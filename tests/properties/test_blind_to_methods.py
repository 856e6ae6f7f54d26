"""No code asks which method it runs, or of which class a component is: a method is the parts that fill the slots."""

import ast
import re
from pathlib import Path

import pytest

from sslkit import builtin
from sslkit.hookspecs import KINDS

SOURCE = Path(__file__).parents[2] / "sslkit"
TARGETS = [target for kind in KINDS for target in getattr(builtin, kind.hook)()]
# A component's own package may know it: {"Centering": "collapse", ...}.
OWNERS = {target.partition(":")[2]: target.split(".")[1] for target in TARGETS}
METHOD = re.compile(r"(?i)(?<![a-z])(dino|byol|moco|swav)(?!head|_head|[a-z])")
ASKING = {"isinstance", "issubclass", "startswith", "endswith", "match", "search", "fullmatch"}
FACADE = "__init__.py"


def asked(spec):
    """Yield the parts of a node whose value decides what happens next."""
    if isinstance(spec, ast.Call) and getattr(spec.func, "id", getattr(spec.func, "attr", "")) in ASKING:
        yield from spec.args
    elif isinstance(spec, ast.Compare):
        yield from [spec.left, *spec.comparators]
    elif isinstance(spec, ast.MatchClass):
        yield spec.cls
    elif isinstance(spec, ast.MatchValue):
        yield spec.value
    elif isinstance(spec, ast.Subscript) and isinstance(spec.value, ast.Dict):
        yield from filter(None, spec.value.keys)


def words(spec):
    """Yield the names and the texts in a node; ``ast.Constant`` is no schedule."""
    for part in ast.walk(spec):
        if isinstance(part, ast.Attribute) and getattr(part.value, "id", "") == "ast":
            continue
        for field in ("id", "attr", "value"):
            if isinstance(word := getattr(part, field, None), str):
                yield word


def identifiers(tree):
    for spec in ast.walk(tree):
        for field in ("id", "attr", "arg", "name"):
            if isinstance(word := getattr(spec, field, None), str):
                yield spec, word


def questions(source, unit):
    """Return the lines of a module that ask for a method or for the class of a component of another package."""
    tree = ast.parse(source)
    others = {name for name, owner in OWNERS.items() if owner != unit}
    found = {spec.lineno for spec, word in identifiers(tree) if METHOD.search(word) and hasattr(spec, "lineno")}
    for spec in ast.walk(tree):
        for part in asked(spec):
            found |= {part.lineno for word in words(part) if word in others or METHOD.search(word)}
    return sorted(found)


def test_nobody_asks():
    assert {"Centering", "EMA", "InfoNCE", "DINOHead", "MultiCrop", "AdamW"} <= set(OWNERS)
    found = {}
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE)
        if place.name != FACADE:
            lines = questions(path.read_text(encoding="utf-8"), place.with_suffix("").parts[0])
            found |= {str(place): lines} if lines else {}
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "if method == 'dino': pass",
        "if name.startswith('byol-'): pass",
        "is_moco = True",
        "def step(swav=False): pass",
        "run.dino_mode = 1",
        "if kind in ('MoCo-v2', 'other'): pass",
        "isinstance(rule, Copy)",
        "isinstance(rule, (teachers.EMA, Other))",
        "if type(rule) is PreviousStep: pass",
        "if type(rule).__name__ == 'Copy': pass",
        "{'Centering': 1}[name]",
        "match operator:\n    case SinkhornKnopp():\n        pass",
        "match name:\n    case 'InfoNCE':\n        pass",
    ],
)
def test_the_test_sees_a_question(source):
    assert questions(source, "training") != []


@pytest.mark.parametrize(
    ("source", "unit"),
    [
        ("raise ValueError('take Centering')", "training"),
        ("SUGGESTED = {'embedding': 'MSE', 'logits': {'Centering': {'temperature': None}}}", "fit"),
        ("isinstance(momentum, Schedule)", "training"),
        ("isinstance(backbone, TimmBackbone)", "backbones"),
        ('"""DINO (arXiv:2104.14294)."""', "training"),
        ("from sslkit.heads.dino_head import DINOHead", "builtin"),
    ],
)
def test_the_test_lets_words_for_people_pass(source, unit):
    assert questions(source, unit) == []
