"""Plugins offer, fail alone, and are loaded from entry points and from files."""

import inspect
import multiprocessing
import re
import sys
from pathlib import Path

import pytest
import torch

from sslkit import hookspecs, plugins
from sslkit.checks.components import check_component
from sslkit.clock import Clock
from sslkit.errors import SSLKitError
from sslkit.hookspecs import KINDS
from sslkit.recommendation import RunContext
from sslkit.registry import contract, kind_of
from sslkit.types import Projection, Targets

TINY = Path(__file__).parent / "tiny_parts.py"
DOCS = Path(__file__).parents[1] / "docs" / "plugins.md"

TINY_OF = {
    "backbones": "TinyBackbone",
    "heads": "TinyHead",
    "predictors": "TinyPredictor",
    "view_makers": "TinyViews",
    "teacher_updates": "TinyTeacher",
    "collapse_operators": "TinyOperator",
    "losses": "TinyLoss",
    "optimizers": "TinyOptimizer",
    "schedules": "TinySchedule",
    "image_sources": "TinyImages",
    "evaluators": "TinyEvaluator",
    "callbacks": "TinyCallback",
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one plugin, as pip would."""

    names = []

    def install_plugin(name: str, source: str, version: str = "1.2") -> None:
        names.append(name)
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[sslkit]\n{name} = {name}\n")

    monkeypatch.syspath_prepend(tmp_path)
    yield install_plugin
    for name in names:
        sys.modules.pop(name, None)


def offering(hook: str, targets: str) -> str:
    return f"from sslkit import hookimpl\n\n@hookimpl\ndef {hook}():\n    return {targets}\n"


def found(name: str, among: plugins.Plugins) -> plugins.Plugin:
    return next(plugin for plugin in among.found if plugin.name == name)


def test_hooks_and_kinds_are_the_same():
    specs = [name for name, spec in vars(hookspecs).items() if hasattr(spec, "sslkit_spec")]
    assert specs == [kind.hook for kind in KINDS] == list(TINY_OF)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.hook)
def test_every_hook_is_documented_with_its_signature(kind):
    spec = getattr(hookspecs, kind.hook)
    text = DOCS.read_text(encoding="utf-8")
    assert f"### `{kind.hook}({', '.join(inspect.signature(spec).parameters)})`" in text
    assert kind.contract.rpartition(":")[2] in inspect.getdoc(spec)
    assert f"`{kind.contract.replace(':', '.')}`" in text


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.hook)
def test_a_plugin_can_offer_every_kind(kind, install):
    name = f"offers_{kind.hook}"
    install(name, TINY.read_text() + offering(kind.hook, f"['{name}:{TINY_OF[kind.hook]}']"))
    loaded = plugins.find_plugins()
    plugin = found(name, loaded)
    assert (plugin.error, plugin.origin, plugin.hooks) == ("", f"{name} 1.2", (kind.hook,))
    assert TINY_OF[kind.hook] in loaded.registry.names(kind.hook)
    assert issubclass(loaded.registry.get(kind.hook, TINY_OF[kind.hook]), contract(kind))


def test_a_class_itself_can_be_offered(install):
    install("offers_class", TINY.read_text() + offering("losses", "[TinyLoss]"))
    registry = plugins.find_plugins().registry
    assert registry.get("losses", "TinyLoss").__module__ == "offers_class"
    assert registry.find("losses", "TinyLoss").path == "offers_class:TinyLoss"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError"),
        (offering("collapse_operator", "[]"), "no hook 'collapse_operator'. Did you mean 'collapse_operators'?"),
        (offering("losses", "['CrossEntropy']"), "losses() must return classes or 'package.module:Class'"),
        (offering("losses", "'package.module:Class'"), "losses() must return a list"),
        (offering("losses", "None"), "losses() must return a list, not None"),
        (offering("losses", "1 / 0"), "ZeroDivisionError"),
        (offering("losses", "[]").replace("losses()", "losses(config)"), "PluginValidationError"),
        ("x = 1", "it offers nothing"),
        (
            TINY.read_text() + offering("losses", "[mine]") + "class mine(TinyLoss): ...",
            "mine in losses: names of classes in recipes begin with a capital",
        ),
        ("class Mine: ...", "and Mine extends no contract of sslkit (Backbone, Head, Predictor, ViewMaker,"),
        ("def losses():\n    return []", "its function losses() is not marked @sslkit.hookimpl, so it would offer"),
        ("import sys\nsys.exit(0)", "it called sys.exit(0) while it was loaded"),
        (offering("losses", "__import__('sys').exit()"), "it called sys.exit() while it was loaded"),
        (
            offering("losses", "[__import__('sslkit').Loss]"),
            "Loss of a_failing 1.2 is not a complete loss",
        ),
        (offering("heads", "[__import__('sslkit').MSE]"), "MSE of a_failing 1.2 is not a head: it does not extend"),
        ("import sslkit\nclass Mine(sslkit.Loss): ...", "Mine of a_failing 1.2 is not a complete loss: it does not de"),
    ],
)
def test_a_failing_plugin_is_reported_and_stops_nobody(source, said, install):
    install("a_failing", source)
    install("b_working", TINY.read_text() + offering("losses", "['b_working:TinyLoss']"))
    loaded = plugins.find_plugins()
    assert said in found("a_failing", loaded).error
    assert found("b_working", loaded).error == ""
    assert {"CrossEntropy", "TinyLoss"} <= set(loaded.registry.names("losses"))


def test_a_crash_keeps_its_traceback(install):
    install("crashing", "def inner():\n    raise RuntimeError('here')\ninner()")
    error = found("crashing", plugins.find_plugins()).error
    assert "in inner" in error
    assert "RuntimeError: here" in error


def test_a_class_that_is_named_twice_is_offered_once(install):
    install("offers_twice", TINY.read_text() + offering("losses", "[TinyLoss, TinyLoss]"))
    registry = plugins.find_plugins().registry
    assert registry.get("losses", "TinyLoss").__module__ == "offers_twice"


def test_an_abstract_class_with_a_subclass_is_a_base_and_not_offered(tmp_path):
    file = tmp_path / "with_base.py"
    source = (
        "import sslkit\nclass Base(sslkit.Loss): ...\nclass Mine(Base):\n    def forward(self, student, targets): ..."
    )
    file.write_text(source)
    with plugins.using([file]) as loaded:
        assert {"Base", "Mine"} & {*loaded.registry.names("losses")} == {"Mine"}


def test_a_name_that_is_taken_is_reported_and_refused(install):
    install("rival", offering("losses", "['rival:CrossEntropy', 'rival:Fresh']"))
    loaded = plugins.find_plugins()
    assert "CrossEntropy in losses is already offered by sslkit" in found("rival", loaded).error
    assert "Fresh" not in loaded.registry.names("losses")
    with pytest.raises(SSLKitError, match=r"offered by sslkit .* and by rival 1\.2"):
        loaded.registry.get("losses", "CrossEntropy")


@pytest.mark.parametrize("word", ["rival", "other,rival", "all"])
def test_plugins_can_be_disabled(word, install, monkeypatch):
    install("rival", "raise RuntimeError")
    monkeypatch.setenv(plugins.DISABLE, word)
    plugin = found("rival", plugins.find_plugins())
    assert plugin.disabled
    assert plugin.error == ""
    assert found(plugins.OWN, plugins.find_plugins()).hooks


def test_a_file_of_plain_classes_offers_them_for_a_while():
    before = plugins.active()
    with plugins.using([TINY]) as loaded:
        assert plugins.active() is loaded
        for hook, name in TINY_OF.items():
            assert issubclass(loaded.registry.get(hook, name), contract(kind_of(hook)))
        assert loaded.registry.find("losses", "TinyLoss").origin == str(TINY)
        assert "Loss" not in loaded.registry.names("losses")
    assert plugins.active() is before
    assert "TinyLoss" not in before.registry.names("losses")


def test_a_file_with_hooks_offers_what_they_say(tmp_path):
    file = tmp_path / "some_hooks.py"
    file.write_text(TINY.read_text() + offering("losses", "[TinyLoss]"))
    with plugins.using([file]) as loaded:
        assert "TinyLoss" in loaded.registry.names("losses")
        assert "TinyHead" not in loaded.registry.names("heads")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "there is no such file"),
        ("x = 1", "offers nothing"),
        ("\nraise RuntimeError('broken here\\nand there')", "cannot.py:2: RuntimeError: broken here (SSLKIT_DEBUG=1"),
        ("\nimport json\njson.loads('x')", "cannot.py:3: json.decoder.JSONDecodeError: Expecting value"),
        ("x = 1\ndef y(:\n", "cannot.py:2: SyntaxError: invalid syntax"),
        (offering("los", "[]"), "no hook 'los'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(source, said, tmp_path):
    file = tmp_path / "cannot.py"
    if source is not None:
        file.write_text(source)
    with pytest.raises(SSLKitError, match=r"--plugin .*cannot\.py") as refused, plugins.using([file]):
        pass
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("random.py", "there is a module 'random' already"),
        ("my-file.py", "named like a module"),
        ("a.txt", "Python file"),
    ],
)
def test_a_file_that_cannot_be_imported_by_name_is_refused(name, said, tmp_path):
    (tmp_path / name).write_text(TINY.read_text())
    with pytest.raises(SSLKitError, match=said), plugins.using([tmp_path / name]):
        pass


def test_a_fresh_process_can_unpickle_what_a_file_defines():
    path = list(sys.path)
    with plugins.using([TINY]) as loaded:
        source = loaded.registry.get("image_sources", "TinyImages")(num_images=3)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(len, (source,)) == 3
    assert sys.path == path
    assert "tiny_parts" not in sys.modules


def test_the_documented_file_works(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "my_operator.py"
    file.write_text(blocks[0])
    with plugins.using([file]) as loaded:
        operator = loaded.registry.get("collapse_operators", "Whitening")(num_prototypes=4)
    logits = torch.randn(2, 5, 4)
    teacher = Projection(torch.empty(2, 5, 1), torch.empty(2, 5, 1), torch.empty(2, 5, 1), logits, (0, 1))
    expected = ((logits - logits.mean((0, 1))) / logits.std((0, 1), correction=0)).softmax(-1)
    for _ in range(400):
        operator.update(teacher)
    torch.testing.assert_close(operator(teacher).values, expected, rtol=1e-3, atol=1e-4)


def test_the_documented_loss_works(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "my_loss.py"
    file.write_text(next(block for block in blocks if "my_loss.py" in block))
    with plugins.using([file]) as loaded:
        loss = loaded.registry.get("losses", "SmoothL1")(beta=2.0)
    check_component(loss)
    student, target = torch.randn(2, 3, 4), torch.randn(1, 3, 4)
    found = loss(Projection.of(embedding=student), Targets(target, "embedding", (0,)))
    torch.testing.assert_close(found, torch.nn.functional.smooth_l1_loss(student[1], target[0], beta=2.0))


def test_the_documented_component_speaks_of_itself():
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for block in (block for block in blocks if "Whitening(" in block and "class" in block):
        exec(compile(block, str(DOCS), "exec"), names)
    operator = names["SlowWhitening"](num_prototypes=4, momentum=0.995)
    long, short = (RunContext(640, 64, Clock(0, steps, 10)) for steps in (1000, 100))
    assert dict(operator.describe(long)) == {"moments cover": "200 steps, 20 epochs"}
    assert list(operator.recommend(long)) == []
    [recommendation] = operator.recommend(short)
    assert (
        str(recommendation) == "with momentum 0.995 the moments need more steps than the run has (measured on textures)"
    )
    assert list(names["SlowWhitening"](num_prototypes=4, **recommendation.changes).recommend(short)) == []


def test_the_documented_package_offers_it(install):
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    install("sslkit_whitening", blocks[1])
    assert "Whitening" in plugins.find_plugins().registry.names("collapse_operators")
    assert '[project.entry-points.sslkit]\nwhitening = "sslkit_whitening"' in text
