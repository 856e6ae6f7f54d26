"""Names to classes, and what is said of them without importing them."""

import importlib
import inspect
import pkgutil
import sys

import pytest

import sslkit
from sslkit import builtin, plugins
from sslkit.contracts import Loss
from sslkit.errors import SSLKitError, UnknownName
from sslkit.hookspecs import KINDS
from sslkit.losses.cross_entropy import CrossEntropy
from sslkit.registry import Entry, Registry, class_docstring, class_fields, contract, kind_of, source_of

CROSS_ENTROPY = Entry("losses", "sslkit.losses.cross_entropy:CrossEntropy", "sslkit", "sslkit 0.1.0")
COMPONENT_PACKAGES = [
    "views",
    "backbones",
    "heads",
    "teachers",
    "collapse",
    "losses",
    "data",
    "evaluators",
    "callbacks",
]


def test_a_name_gives_the_class():
    registry = Registry([CROSS_ENTROPY])
    assert registry.get("losses", "CrossEntropy") is CrossEntropy
    assert registry.names("losses") == ["CrossEntropy"]
    assert registry.names("heads") == []
    assert CROSS_ENTROPY.summary == inspect.getdoc(CrossEntropy).splitlines()[0]
    assert Entry("losses", "no_such.module:Name", "x", "x").summary == ""


@pytest.mark.parametrize(
    "path", ["sslkit.losses.cross_entropy.CrossEntropy", "sslkit.losses.cross_entropy:CrossEntropy"]
)
def test_a_dotted_path_may_name_what_a_plugin_offers_or_what_is_imported(path):
    assert Registry([CROSS_ENTROPY]).get("losses", path) is CrossEntropy
    assert Registry().get("losses", path) is CrossEntropy


def test_a_dotted_path_imports_only_what_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/__init__.py").write_text("")
    (tmp_path / "theirs/loss.py").write_text("from sslkit.losses.mse import MSE\nclass Own(MSE): pass\n")
    (tmp_path / "theirs_too.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for path in ("theirs.loss.Own", "theirs.loss:Own", "theirs_too.Own", "no.such.Module", "this.Thing"):
        with pytest.raises(SSLKitError) as refused:
            Registry(allowed=["their", "theirs.los"]).get("losses", path, "method.loss")
        module = path.replace(":", ".").rpartition(".")[0]
        assert str(refused.value).startswith(f"method.loss: no installed plugin offers {path!r}, and a recipe alone")
        assert str(refused.value).endswith(f"add\n  --allow {module}")
        assert module not in sys.modules
    assert Registry(allowed=["theirs"]).get("losses", "theirs.loss.Own").__name__ == "Own"
    del sys.modules["theirs.loss"]
    assert Registry(allowed=["theirs.loss"]).get("losses", "theirs.loss:Own").__name__ == "Own"
    with pytest.raises(SSLKitError, match="is not a loss"):
        Registry().get("losses", "torch.nn.Linear")


def test_an_unknown_name_is_refused_with_the_likely_one_and_the_place():
    with pytest.raises(UnknownName) as refused:
        Registry([CROSS_ENTROPY]).get("losses", "CrosEntropy", "method.loss")
    expected = "method.loss: unknown loss 'CrosEntropy'. Did you mean 'CrossEntropy'? Choices: CrossEntropy."
    assert str(refused.value) == expected


def test_a_name_offered_twice_is_refused_with_both_origins():
    registry = Registry([CROSS_ENTROPY, Entry("losses", "other:CrossEntropy", "rival", "sslkit-rival 2.0")])
    with pytest.raises(SSLKitError, match=r"sslkit 0\.1\.0 and by sslkit-rival 2\.0.*SSLKIT_DISABLE_PLUGINS=rival"):
        registry.get("losses", "CrossEntropy")
    assert registry.names("losses") == ["CrossEntropy"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("sslkit.schedules:Cosine", "Cosine of here is not a loss: it does not extend sslkit.contracts.Loss"),
        ("sslkit.contracts:Loss", "Loss of here is not a complete loss: it does not define forward"),
        ("sslkit.losses.cross_entropy:CrossEntrop", "Did you mean 'CrossEntropy'"),
        ("sslkit.losses.nowhere:Some", "cannot import sslkit.losses.nowhere:Some: ModuleNotFoundError"),
        ("sslkit.losses.cross_entropy:matching_pairs", "is not a loss"),
    ],
)
def test_what_is_no_component_is_refused(target, said):
    entry = Entry("losses", target, "here", "here")
    with pytest.raises(SSLKitError) as refused:
        entry.load()
    assert said in str(refused.value)


def test_a_class_knows_its_short_name():
    registry = Registry([CROSS_ENTROPY])
    assert registry.short_name("losses", CrossEntropy) == "CrossEntropy"
    stranger = type("CrossEntropy", (Loss,), {"__module__": "elsewhere"})
    assert registry.short_name("losses", stranger) == "elsewhere.CrossEntropy"


def test_kinds_answer_to_hook_command_and_singular():
    words = ["collapse_operators", "collapse-operators", "collapse-operator", "Collapse_Operator", "collapse"]
    assert {kind_of(word).hook for word in words} == {"collapse_operators"}
    assert [kind_of(kind.singular.replace(" ", "-")) for kind in KINDS] == list(KINDS)
    with pytest.raises(UnknownName, match="Did you mean 'losses'"):
        kind_of("lossess")
    for ambiguous in ("", "c"):
        with pytest.raises(UnknownName):
            kind_of(ambiguous)


def test_docstrings_are_read_without_importing(tmp_path, monkeypatch):
    package = tmp_path / "heavy_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "inner" / "__init__.py").write_text(
        "class A:\n    '''In a package.\n\n    More.'''\n    x: int = 1\n    y = 2\n"
    )
    (package / "module.py").write_text("class B:\n    '''In a module.'''\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert class_docstring("heavy_package.inner", "A").splitlines()[0] == "In a package."
    assert class_fields("heavy_package.inner", "A") == ["x"]
    assert class_docstring("heavy_package.module", "B") == "In a module."
    assert class_docstring("heavy_package.module", "C") == class_docstring("heavy_package.none", "C") == ""
    assert class_docstring("no_such_package.none", "C") == ""
    assert source_of("heavy_package") == package / "__init__.py"
    assert "heavy_package" not in sys.modules


def test_every_builtin_loads_and_says_what_it_is():
    registry = plugins.active().registry
    entries = [entry for kind in KINDS for entry in registry.entries(kind.hook) if entry.plugin == plugins.OWN]
    assert len(entries) > 15
    for entry in entries:
        assert issubclass(entry.load(), contract(kind_of(entry.kind)))
        assert entry.summary, entry.name


def test_every_component_of_the_package_is_offered():
    offered = {str(target) for kind in KINDS for target in getattr(builtin, kind.hook, list)()}
    for package in COMPONENT_PACKAGES:
        folder = importlib.import_module(f"sslkit.{package}")
        for info in pkgutil.iter_modules(folder.__path__, f"{folder.__name__}."):
            module = importlib.import_module(info.name)
            for name, found in vars(module).items():
                is_own = isinstance(found, type) and found.__module__ == info.name and not name.startswith("_")
                if is_own and issubclass(found, tuple(map(contract, KINDS))) and not inspect.isabstract(found):
                    assert f"{info.name}:{name}" in offered


def test_everything_public_is_there():
    for name in sslkit.__all__:
        assert getattr(sslkit, name) is not None
    with pytest.raises(AttributeError, match="Nothing"):
        _ = sslkit.Nothing
