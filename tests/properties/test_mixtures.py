"""Every mixture of the slots, from overrides on one recipe: it trains, or it is refused as docs/mixtures.md says.

``python tests/properties/test_mixtures.py`` walks the grid and writes its table into that page.
"""

import functools
import itertools
import re
import shlex
from contextlib import contextmanager
from math import inf
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

from sslkit import plugins
from sslkit.clock import Clock
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.errors import SSLKitError
from sslkit.method.step import train_step
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.recipe import files, load, loading, specification
from sslkit.recipe.model import build_model
from sslkit.recipe.validation import validate
from sslkit.types import Views

PAGE = Path(__file__).parents[2] / "docs" / "mixtures.md"
BATCH, EPOCH, STEPS, MOMENTUM = 4, 2, 3, 0.75

RECIPE = f"""\
name: mixture
method:
  backbone: TinyBackbone
  head: {{DINOHead: {{num_prototypes: 8, hidden_dim: 8, embed_dim: 4}}}}
  teacher: {{EMA: {{momentum: {MOMENTUM}}}}}
  collapse: {{Centering: {{momentum: {MOMENTUM}}}}}
  loss: CrossEntropy
views: {{MultiCrop: {{global_size: 8, local_size: 4, num_local_views: 2}}}}
data: {{train: {{TinyImages: {{num_images: {EPOCH * BATCH}}}}}}}
optimization:
  {{optimizer: AdamW, batch_size: {BATCH}, epochs: 2, lr: 0.01, weight_decay: 0.1, freeze: {{prototypes: 1 epochs}}}}
"""

# Each axis: its points, and the overrides that say them.

TEACHERS = {name: f"--method.teacher {name}" for name in ("EMA", "PreviousEpoch", "PreviousStep", "Copy")}
OPERATORS = {
    "none": "--method.collapse null",
    "Centering": "--method.collapse Centering",
    "Centering, temperature null": "--method.collapse '{Centering: {temperature: null}}'",
    "Centering, temperature 0": "--method.collapse '{Centering: {temperature: 0}}'",
    "SinkhornKnopp": "--method.collapse SinkhornKnopp",
    "SinkhornKnopp, queue": "--method.collapse '{SinkhornKnopp: {queue_size: 8, queue_start: 0 steps}}'",
    "BatchSoftmax": "--method.collapse BatchSoftmax",
    "NegativeQueue": "--method.collapse '{NegativeQueue: {size: 11}}'",
}
LOSSES = {
    "CrossEntropy": "--method.loss CrossEntropy",
    "MSE": "--method.loss MSE",
    "InfoNCE, negatives targets": "--method.loss '{InfoNCE: {negatives: targets}}'",
    "InfoNCE, negatives batch": "--method.loss '{InfoNCE: {negatives: batch}}'",
    "InfoNCE, negatives both": "--method.loss '{InfoNCE: {negatives: both}}'",
}
HEADS = {
    "prototypes": "",
    "no prototypes": "--method.head.num_prototypes null --optimization.freeze.prototypes null",
}
PREDICTORS = {"no predictor": "", "predictor": "--method.predictor '{MLPPredictor: {hidden_dim: 8, batch_norm: NORM}}'"}
VIEWS = {"2 views": "--views.num_local_views 0", "multi-crop": ""}
NORMS = {"no batch norm": "--method.head.batch_norm false", "batch norm": "--method.head.batch_norm true"}
REST = [PREDICTORS, VIEWS, NORMS]

# What docs/mixtures.md refuses, said again: the first of its reasons that holds.

KINDS = dict.fromkeys(OPERATORS, "probabilities") | {
    "none": "embedding",
    "NegativeQueue": "embedding",
    "Centering, temperature null": "logits",
}
TAKES = {loss: {"embedding"} for loss in LOSSES} | {"CrossEntropy": {"probabilities"}, "MSE": {"embedding", "logits"}}
READ_NEGATIVES = {"InfoNCE, negatives targets", "InfoNCE, negatives both"}
TRAINS = "trains"


def expected(operator, loss, head):
    kind, prototypes = KINDS[operator], head == "prototypes"
    reasons = {
        "1": kind != "embedding" and not prototypes,
        "2": kind not in TAKES[loss],
        "3": loss in READ_NEGATIVES and operator != "NegativeQueue",
        "4": operator == "NegativeQueue" and loss not in READ_NEGATIVES,
        "5": kind == "embedding" and prototypes,
    }
    return next((number for number, holds in reasons.items() if holds), TRAINS)


@functools.cache
def refusals():
    """Return the pattern of each refusal's message, by its number on the page."""
    items = re.findall(r"^(\d+)\. \*\*.+?\n +`([^`\n]+)`$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return {number: re.escape(words).replace(r"\.\.\.", ".*") for number, words in items}


def number_of(error):
    [number] = [number for number, pattern in refusals().items() if re.search(pattern, str(error))]
    return number


# One cell.


def once(function):
    """Remember a function's answers, whatever its arguments are."""
    known = {}

    def remembered(*args):
        key = repr(args)
        if key not in known:
            known[key] = function(*args)
        return known[key]

    return remembered


@contextmanager
def loader():
    """The parts of the tests, and a loader that reads no text and no value twice."""
    read = once(loading.read_overrides)

    def pairs(words):
        return zip(words[::2], words[1::2])

    with (
        plugins.using([Path(__file__).parents[1] / "tiny_parts.py"]),
        patch.object(loading, "read_layers", once(lambda text: [files.Layer("grid", yaml.safe_load(text))])),
        patch.object(loading, "read_overrides", lambda words: [layer for pair in pairs(words) for layer in read(pair)]),
        patch.object(specification, "_leaf", once(specification._leaf)),
    ):
        yield


def build(words):
    """Return what a run would start with, checked as a run checks it."""
    parts = load(RECIPE, shlex.split(words)).build()
    model = build_model(parts.method, None, torch.device("cpu"))
    validate(parts.method, parts.views, parts.optimization, parts.runtime)
    return parts, model


def outcome(words, teacher, operator, norm):
    """Return ``trains``, having checked that it does, or the number of the refusal."""
    try:
        parts, model = build(words)
    except SSLKitError as error:
        return number_of(error)
    takes_steps(parts, model, teacher, operator, norm == "batch norm")
    return TRAINS


def takes_steps(parts, model, teacher, operator, norm):
    torch.manual_seed(0)
    plan, student = parts.optimization, model.student
    optimizer = plan.optimizer.build(parameter_groups(student, plan.optimizer.decays_vectors))
    set_rates(optimizer, plan.lr, plan.weight_decay)
    first, learned = values(student), set()
    for step in range(STEPS):
        clock = Clock(step, STEPS, EPOCH)
        views = Views.of([torch.randn(BATCH, 3, size, size) for size in parts.views.sizes])
        frozen = [part for part, duration in plan.freezes.items() if step < duration.steps(clock)]
        students, teachers = values(student), values(model.teacher)
        before = norms(student), norms(model.teacher), state(model)

        output = train_step(model, views, optimizer, clock, frozen=frozen)

        assert output.loss.isfinite()
        learned |= {name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
        teacher_moved(teacher, model, students, teachers, clock, output)
        norms_moved(before[0], norms(student), norm)
        norms_moved(before[1], norms(model.teacher), norm)
        state_moved(operator, before[2], state(model), output, step)

    trainable = {name for name, p in student.named_parameters() if p.requires_grad} - without_effect(student)
    moved = {name for name, p in student.named_parameters() if not torch.equal(p, first[name])}
    assert learned - without_effect(student) == moved - without_effect(student) == trainable
    assert model.teacher is student or all(p.grad is None for p in model.teacher.parameters())


def values(module):
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def state(model):
    return {} if model.collapse is None else {name: s.clone() for name, s in model.collapse.state_dict().items()}


def norms(module):
    """Return mean, variance and count of every batch norm."""
    found = [(name, m) for name, m in module.named_modules() if isinstance(m, nn.BatchNorm1d)]
    return {name: [s.clone() for s in m.buffers()] for name, m in found}


def without_effect(student):
    """Biases that a batch norm takes away again: their gradient is rounding."""
    layers = [(name, m) for name, m in student.named_modules() if not list(m.children())]
    return {f"{name}.bias" for (name, _), (_, after) in itertools.pairwise(layers) if isinstance(after, nn.BatchNorm1d)}


def teacher_moved(rule, model, students, teachers, clock, output):
    assert (model.teacher is model.student) == (rule == "Copy")
    if rule == "Copy":
        torch.testing.assert_close(output.teacher.embedding, F.normalize(output.student.projection[:2], dim=-1))
        return
    now = values(model.teacher)
    follows = {
        "EMA": {name: p.lerp(model.student.get_parameter(name), 1 - MOMENTUM) for name, p in teachers.items()},
        "PreviousEpoch": values(model.student) if clock.is_epoch_end else teachers,
        "PreviousStep": students,
    }[rule]
    assert all(torch.allclose(now[name], follows[name], rtol=1e-6, atol=1e-8) for name in now)
    if rule == "EMA":
        assert any(not torch.equal(now[name], teachers[name]) for name in now)


def norms_moved(before, after, expected):
    assert bool(after) is expected
    for name in after:
        assert all(not torch.equal(old, new) for old, new in zip(before[name], after[name], strict=True))


def state_moved(operator, before, after, output, step):
    embedding, logits = output.teacher.embedding, output.teacher.logits
    if operator.startswith("Centering"):
        before["center"].lerp_(logits.mean((0, 1)), 1 - MOMENTUM)
    elif operator == "SinkhornKnopp, queue":
        before["queue.rows"] = torch.cat([embedding, before["queue.rows"]], 1)[:, :8]
        alone = balance(logits, 0.05, 3)
        assert torch.allclose(output.targets.values, alone, rtol=1e-3) is (step < 8 // BATCH)
    elif operator == "NegativeQueue":
        assert torch.equal(output.targets.negatives, before["queue"])
        for row in embedding.flatten(0, 1):
            before["queue"][before["pointer"]] = row
            before["pointer"] = (before["pointer"] + 1) % 11
    else:
        assert not before
    assert after.keys() == before.keys()
    assert all(torch.allclose(after[name], before[name], rtol=1e-6, atol=1e-7) for name in after)


# The grid.


@functools.cache
def walked(operator, loss):
    """Return the outcome of every cell of an operator and a loss: {(head, teacher): [8 outcomes]}."""
    found = {}
    with loader():
        for head, teacher in itertools.product(HEADS, TEACHERS):
            pair = [OPERATORS[operator], LOSSES[loss], HEADS[head], TEACHERS[teacher]]
            for point in itertools.product(*REST):
                words = " ".join([*pair, *(axis[name] for axis, name in zip(REST, point, strict=True))])
                words = words.replace("NORM", words.split()[-1])
                try:
                    cell = outcome(words, teacher, operator, point[-1])
                except Exception as error:
                    raise AssertionError(f"{words}: {error}") from error
                found.setdefault((head, teacher), []).append(cell)
    return found


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_cell_trains_or_is_refused_for_the_reason_on_the_page(operator, loss):
    found = walked(operator, loss)
    assert len(found) == len(HEADS) * len(TEACHERS)
    for (head, _), outcomes in found.items():
        assert outcomes == [expected(operator, loss, head)] * 8


# The other refusals, and where the messages lead.

OTHERS = {
    "--method.student_views [0] --method.teacher_views [0]": "6",
    "--views '{num_global_views: 1, num_local_views: 0, global_blur: [0], global_solarize: [0]}'": "6",
    "--method.collapse '{SinkhornKnopp: {queue_size: 8, num_views: 3}}'": "7",
    "--method.collapse '{SinkhornKnopp: {queue_size: 3}}'": "8",
    "--method.head MLPHead --method.collapse null --method.loss MSE": "9",
    "--optimization.freeze.predictor '1 epochs'": "9",
    f"{HEADS['no prototypes']} {OPERATORS['none']} {LOSSES['InfoNCE, negatives batch']} --runtime.accumulation 2": "10",
}


@pytest.fixture
def _loader():
    with loader():
        yield


@pytest.mark.usefixtures("_loader")
@pytest.mark.parametrize("words", OTHERS)
def test_what_the_grid_does_not_reach_is_refused_when_built(words):
    assert refusal(words)[0] == OTHERS[words]


def test_the_page_holds_these_refusals_and_no_others():
    grid = {expected(*point) for point in itertools.product(OPERATORS, LOSSES, HEADS)} - {TRAINS}
    assert [*refusals()] == [str(i + 1) for i in range(len(refusals()))]
    assert {*refusals()} == grid | {*OTHERS.values()}


def refusal(words):
    """Return the number of a refusal and the overrides that its message offers, each as one string; None where none."""
    try:
        build(words)
    except SSLKitError as error:
        return number_of(error), re.findall(r"^  (--.+)$", str(error), re.M)
    return None


def corrections(words, kept, most):
    """Return how many printed corrections it takes until these overrides train; more than ``most`` is inf.

    Args:
        words: overrides.
        kept: the keys that no correction may change.
        most: how many to try.
    """
    refused = refusal(words)
    if refused is None or not most:
        return inf if refused else 0
    options = [option for option in refused[1] if not {*option.split()} & kept]
    return 1 + min((corrections(f"{words} {option}", kept, most - 1) for option in options), default=inf)


MLP = "--method.head '{MLPHead: {hidden_dim: 8, embed_dim: 4}}' --optimization.freeze.prototypes null"
SWAV = "--method.head '{SwAVHead: {num_prototypes: 8, hidden_dim: 8, embed_dim: 4}}' --method.teacher Copy"
STARTS = {
    "dino": "",
    "byol": f"{MLP} {OPERATORS['none']} {LOSSES['MSE']}",
    "moco": f"{MLP} {OPERATORS['NegativeQueue']} {LOSSES['InfoNCE, negatives targets']}",
    "swav": f"{SWAV} {OPERATORS['SinkhornKnopp']}",
}
PAIRS = [pair for pair in itertools.product(OPERATORS, LOSSES) if TRAINS in (expected(*pair, head) for head in HEADS)]
WISHES = [*OPERATORS.values(), *LOSSES.values(), *(f"{OPERATORS[operator]} {LOSSES[loss]}" for operator, loss in PAIRS)]


@pytest.mark.usefixtures("_loader")
@pytest.mark.parametrize("start", STARTS)
def test_two_printed_corrections_lead_to_every_mixture(start):
    assert refusal(STARTS[start]) is None
    for wish in WISHES:
        slots = {word for word in wish.split() if word.startswith("--")}
        assert corrections(f"{STARTS[start]} {wish}", slots, most=2) <= 2, wish


@pytest.mark.usefixtures("_loader")
@pytest.mark.parametrize("words", OTHERS)
def test_what_a_message_offers_mends_it(words):
    assert corrections(words, kept=set(), most=1) == 1


# The table of the page.

BEGIN, END = "<!-- written by: python tests/properties/test_mixtures.py -->\n\n", "\n<!-- end of what is written -->\n"


def table():
    """Return the page's tables of the grid, from walking it."""
    pairs = [[operator, *(cell(operator, loss) for loss in LOSSES)] for operator in OPERATORS]
    rules = [[f"{operator}, {loss}", *trained(operator, loss)] for operator, loss in PAIRS]
    return markdown(["operator", *LOSSES], pairs) + "\n" + markdown(["operator, loss", *TEACHERS], rules)


def markdown(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cell(operator, loss):
    """Return the outcomes with prototypes and without, over all rules and the rest."""
    found = walked(operator, loss)
    return " / ".join(
        " or ".join(sorted({o for (head, _), outcomes in found.items() if head == name for o in outcomes}))
        for name in HEADS
    )


def trained(operator, loss):
    """Yield how many of the cells of each rule train, of those whose head fits."""
    found = walked(operator, loss)
    for rule in TEACHERS:
        outcomes = max((found[head, rule] for head in HEADS), key=lambda outcomes: outcomes.count(TRAINS))
        yield f"{outcomes.count(TRAINS)} of {len(outcomes)}"


def test_the_table_on_the_page_is_what_the_grid_gives():
    assert table() in PAGE.read_text(encoding="utf-8"), "run python tests/properties/test_mixtures.py"


if __name__ == "__main__":
    torch.set_num_threads(1)
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")
