"""Mistakes of people who write plugins: each is one message that names the class, from the command line.

Every case is a plugin file with one wrong component, which `sslkit train` refuses without a traceback.
"""

from pathlib import Path
from textwrap import indent

import pytest

from sslkit.cli.main import main

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")

RECIPE = """\
method:
  backbone: TinyBackbone
  head: TinyHead
  teacher: {EMA: {momentum: 0.99}}
  collapse: TinyOperator
  loss: CrossEntropy
views: TinyViews
data: {train: {TinyImages: {num_images: 32}}, test: {TinyImages: {num_images: 16}}}
optimization: {optimizer: TinyOptimizer, batch_size: 8, steps: 2, epochs: 1, lr: 1e-3}
evaluation: {view_size: 8, resize: 8}
runtime: {device: cpu, num_workers: 0, log_every: 1, on_collapse: ignore}
precision: fp32
"""

FILE = """\
import sys
import torch
from torch import nn
from sslkit import *
from tiny_parts import *

class Mine({contract}):
    '''Wrong.'''
{body}
{rest}
"""

PLACES = {
    "Backbone": "method.backbone",
    "Head": "method.head",
    "Predictor": "method.predictor",
    "TeacherUpdate": "method.teacher",
    "CollapseOperator": "method.collapse",
    "Loss": "method.loss",
    "ViewMaker": "views",
    "ImageSource": "data.train",
    "Optimizer": "optimization.optimizer",
    "Schedule": "optimization.lr",
    "Evaluator": "evaluation.evaluators",
    "Callback": "runtime.callbacks",
}

FORWARD = "def forward(self, teacher, clock=None):\n    "
TARGETS = FORWARD + "return Targets(teacher.logits.softmax(-1), 'probabilities', teacher.view_ids)\n"
ACCEPTS = "accepts = frozenset({'probabilities'})\n"
LOSS = ACCEPTS + "def forward(self, student, targets): "
MEAN = LOSS + "return student.logits.mean()\n"
LAYER = "def __init__(self):\n    super().__init__()\n    self.embed_dim, self.layer = 8, nn.Linear(3, 8)\n"
IMAGES = "name, keys = 'mine', torch.arange(32)\ndef read(self, index): "
VIEWS = "num_globals, sizes = 2, [8, 8]\ndef prepare(self, sample, epoch, seed): return (sample.image,)\n"
MAKE = VIEWS + "def make(self, prepared, keys, epoch, seed): return "
MEASURE = "command, protocol, needs_labels = 'mine', 'mine/1', False\ndef run(self, backbone, data): "

REFUSED = [
    ("CollapseOperator", FORWARD + "return teacher.logits", "Mine: forward returns a Tensor, not sslkit.Targets"),
    ("CollapseOperator", FORWARD + "pass", "Mine: forward returns None, not sslkit.Targets"),
    ("CollapseOperator", "", "it does not define forward"),
    ("CollapseOperator", "center = torch.zeros(3)\n" + TARGETS.replace("clock=None", "x, y"), "forward takes (teacher"),
    ("CollapseOperator", "def __init__(self): self.a = 1\n" + TARGETS, "Mine: __init__ does not call super().__init__"),
    ("CollapseOperator", TARGETS + "def metrics(self, clock): pass", "Mine: metrics returns None, not a mapping"),
    ("Loss", MEAN.replace(ACCEPTS, ""), "method.loss: mistaken.Mine does not set accepts"),
    ("Loss", "def __init__(self): self.scale = nn.Linear(2, 2)\n" + MEAN, "__init__ does not call super().__init__"),
    (
        "Loss",
        "def __init__(self):\n    super().__init__()\n    self.scale = nn.Parameter(torch.ones(()))\n" + MEAN,
        "Mine: scale would never be trained",
    ),
    (
        "Loss",
        "def __init__(self, t: float | Schedule = Cosine(1, 0)):\n    super().__init__()\n    self.t = t\n" + MEAN,
        "Mine: t is a schedule, Cosine, but no method of a Loss is given the clock",
    ),
    ("Loss", LOSS + "return student.logits.mean(-1)", "Mine: forward returns (4, 8) numbers, not one"),
    ("Loss", LOSS + "return 1.0", "Mine: forward returns a float, not a tensor"),
    ("Loss", "def __init__(self, t: 'a b' = 1): super().__init__()\n" + MEAN, "a type hint of __init__ cannot be read"),
    ("Loss", "def __init__(self): {}['x']\n" + MEAN, "method.loss: mistaken.Mine.__init__ (mistaken.py:9) raised"),
    ("Loss", MEAN + "def recommend(self, context): return None", "recommend returns None, not recommendations"),
    ("Backbone", LAYER + "def forward(self, images): return self.layer(images.mean((2, 3)))", "it returns Tensor, not"),
    ("Backbone", LAYER + "def forward(self, images): return Features(images)", "it returns (2, 3, 8, 8) for 2 images"),
    ("Head", "embed_dim = 4", "method.head: mistaken.Mine does not set projector"),
    ("Predictor", "def forward(self, rows): return rows, 1", "Mine: forward returns a tuple, not a tensor"),
    ("TeacherUpdate", "def after_step(self, student, teacher): pass", "is called as after_step(student, teacher, "),
    ("ViewMaker", MAKE + "torch.stack([prepared[0]] * 2)", "Mine: make returns a Tensor, not sslkit.Views"),
    ("ViewMaker", MAKE + "Views.of([prepared[0]])", "Mine: make returns view 1 missing"),
    ("ViewMaker", (MAKE + "0").replace("(sample.image,)", "sample.image"), "prepare returns a Tensor, not a tuple"),
    ("ImageSource", IMAGES + "return torch.zeros(3, 8, 8)", "Mine: read returns a Tensor, not sslkit.Sample"),
    ("ImageSource", IMAGES + "return Sample(torch.zeros(8, 8), index)", "Mine: read gives the image (8, 8); it is"),
    ("ImageSource", IMAGES.replace("keys", "kees") + "pass", "data.train: mistaken.Mine does not set keys"),
    ("Optimizer", "def build(self, groups): torch.optim.SGD(groups)", "Mine: build returns None, not a torch.optim"),
    ("Schedule", "def __call__(self, clock): pass", "optimization.lr: mistaken.Mine returns None at step 0"),
    ("Schedule", "def __call__(self): return 1.0", "__call__ takes (), but is called as __call__(clock)"),
    ("Evaluator", MEASURE + "yield 'mine/x', 'good'", "Mine: run returns 'good' as 'mine/x', not names and numbers"),
    ("Evaluator", MEASURE + "return []", "Mine: run returns nothing, not names and numbers"),
    ("Evaluator", MEASURE.replace("command", "name") + "return []", "evaluators.0: mistaken.Mine does not set command"),
    (
        "Evaluator",
        MEASURE + "\n    for p in backbone.parameters(): p.data.zero_()\n    yield 'mine/x', 1.0",
        "Mine: run changes the backbone, which is frozen",
    ),
    ("Callback", "def on_epoch_end(self, run): pass", "a callback has no 'on_epoch_end', so nothing calls it. Did you"),
    ("nn.Module", "", "it offers nothing: no function marked @sslkit.hookimpl, and Mine extends no contract of sslkit"),
]

FAILED = [
    ("CollapseOperator", FORWARD + "return teacher.logits @ torch.zeros(3)", "Mine.forward (mistaken.py:10) raised R"),
    ("CollapseOperator", FORWARD + "sys.exit(0)", "Mine.forward (mistaken.py:10) called sys.exit(0), which ended the"),
    ("ViewMaker", (MAKE + "0").replace("(sample.image,)", "sample.name"), "Mine.prepare (mistaken.py:10) raised Attr"),
    ("ImageSource", IMAGES + "return {}[index]", "Mine.read (mistaken.py:10) raised KeyError"),
    ("ImageSource", IMAGES + "sys.exit(0)", "Mine.read (mistaken.py:10) called sys.exit(0)"),
    ("Evaluator", MEASURE + "yield 'mine/x', 1 / 0", "Mine.run (mistaken.py:10) raised ZeroDivisionError"),
    ("Callback", "def on_step_end(self, run, metrics): run.nothing", "Mine.on_step_end (mistaken.py:9) raised Attr"),
    (
        "Callback",
        "def on_step_end(self, run, metrics): sys.exit(0)",
        "Mine.on_step_end (mistaken.py:9) called sys.exit",
    ),
    ("Callback", "def on_run_end(self, run): sys.exit()", "Mine.on_run_end (mistaken.py:9) called sys.exit()"),
]


@pytest.fixture
def attempt(tmp_path, monkeypatch, capfd):
    """Return a function that trains a recipe with one component of a plugin file: exit code and standard error."""

    def train(contract, body, *words, rest=""):
        monkeypatch.chdir(tmp_path)
        Path("tiny.yaml").write_text(RECIPE)
        Path("mistaken.py").write_text(FILE.format(contract=contract, body=indent(body, "    "), rest=rest))
        place = PLACES.get(contract, "method.backbone")
        value = {"Schedule": "{Mine: {}}", "Evaluator": "[Mine]", "Callback": "[Mine]"}.get(contract, "Mine")
        plugins = ["--plugin", TINY, "--plugin", "mistaken.py"]
        code = main(["train", "tiny.yaml", "--run-dir", "run", *plugins, f"--{place}", value, *words])
        return code, capfd.readouterr().err

    return train


@pytest.mark.parametrize(("contract", "body", "said"), REFUSED)
def test_a_component_that_breaks_its_contract_is_refused(attempt, contract, body, said):
    code, told = attempt(contract, body)
    assert said in told
    assert (code, "Traceback" in told) == (2, False)


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(("contract", "body", "said"), FAILED)
def test_an_exception_of_a_component_is_one_message(attempt, contract, body, said, workers):
    if workers == "1" and contract not in ("ViewMaker", "ImageSource"):
        pytest.skip("it runs in no worker")
    code, told = attempt(contract, body, "--runtime.num_workers", workers)
    assert said in told
    assert (code, "Traceback" in told) == (1, False)


def test_a_plugin_that_ends_the_program_while_it_is_loaded_is_refused(attempt):
    code, told = attempt("Callback", "pass", rest="sys.exit(0)")
    assert (code, "mistaken.py:10: it called sys.exit(0) while it was loaded" in told) == (2, True)


def test_an_evaluation_that_is_not_finite_costs_a_warning(attempt, caplog):
    code, _ = attempt("Evaluator", MEASURE + "yield 'mine/x', float('nan')")
    assert (code, "teacher is not evaluated at step 2: mistaken.Mine: mine/x is nan" in caplog.messages) == (0, True)


def test_what_a_callback_sets_of_a_run_is_refused(attempt):
    code, told = attempt("Callback", "def on_step_end(self, run, metrics): run.clock = 3")
    assert (code, "Mine.on_step_end sets run.clock; a callback may set run.interrupted alone" in told) == (2, True)


def test_what_a_callback_returns_is_told_to_be_ignored(attempt, caplog):
    code, _ = attempt("Callback", "def on_step_end(self, run, metrics): return 'stop'")
    assert (code, caplog.text.count("mistaken.Mine.on_step_end returns str, which nothing reads")) == (0, 1)


def test_a_mutable_default_stays_as_it_is(attempt):
    code, _ = attempt("Loss", "def __init__(self, t: list = [1]):\n    super().__init__()\n    t.append(2)\n" + MEAN)
    assert (code, "t: [1]" in Path("run/recipe.yaml").read_text()) == (0, True)
