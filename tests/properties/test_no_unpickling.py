"""No file that somebody hands over is unpickled: what reads files says so in the call."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a call must say, by the module and the name that it is called by.
SAFE = {("torch", "load"): ("weights_only", True), ("np", "load"): ("allow_pickle", False)}
SAFE["numpy", "load"] = SAFE["np", "load"]
UNPICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HARMLESS = {"UnpicklingError", "PicklingError"}


def unsafe(source):
    """Return the lines that may unpickle."""
    found = []
    for spec in ast.walk(ast.parse(source)):
        if isinstance(spec, ast.ImportFrom) and (spec.module or "").split(".")[0] in UNPICKLES:
            found += [spec.lineno for alias in spec.names if alias.name not in HARMLESS]
        elif isinstance(spec, ast.ImportFrom) and spec.module in ("torch", "numpy"):
            found += [spec.lineno for alias in spec.names if alias.name == "load"]
        elif isinstance(spec, ast.Attribute) and isinstance(spec.value, ast.Name) and spec.value.id in UNPICKLES:
            found += [spec.lineno] * (spec.attr not in HARMLESS)
        elif isinstance(spec, ast.Call) and isinstance(spec.func, ast.Attribute):
            rule = SAFE.get((getattr(spec.func.value, "id", ""), spec.func.attr))
            said = {word.arg: getattr(word.value, "value", None) for word in spec.keywords}
            found += [spec.lineno] * (rule is not None and said.get(rule[0]) is not rule[1])
    return found


def test_nothing_of_ours_unpickles():
    files = [path for folder in ("sslkit", "plugins") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    assert {str(path.relative_to(ROOT)): lines for path in files if (lines := unsafe(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=wish)",
        "np.load(path)",
        "numpy.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "from pickle import load",
        "from torch import load",
        "joblib.load(path)",
    ],
)
def test_the_test_sees_it(source):
    assert unsafe(source) == [1]


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
        "json.load(file)",
    ],
)
def test_the_test_lets_the_rest_pass(source):
    assert unsafe(source) == []
