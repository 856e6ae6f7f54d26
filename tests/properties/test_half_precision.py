"""bf16 and fp16: what is narrow and what is not, and a step in them against the step in float32."""

from types import SimpleNamespace

import pytest
import torch

from sslkit import builtin
from sslkit.clock import Clock
from sslkit.collapse import BatchSoftmax, Centering, NegativeQueue, SinkhornKnopp
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor
from sslkit.heads.swav_head import SwAVHead
from sslkit.losses import MSE, CrossEntropy, InfoNCE
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.optimizers.sgd import SGD
from sslkit.teachers import EMA, Copy
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.types import Projection, Targets, Views

HALF = (torch.bfloat16, torch.float16)
D, K = 7, 11
HEADS = {
    "DINOHead": lambda: DINOHead(5, K, 16, D),
    "DINOHead, trained norm": lambda: DINOHead(5, K, 16, D, freeze_prototype_norm=False),
    "DINOHead, no bottleneck": lambda: DINOHead(5, K, D, l2_bottleneck=False),
    "DINOHead, batch norm": lambda: DINOHead(5, K, 16, D, batch_norm=True),
    "MLPHead": lambda: MLPHead(5, 16, D, batch_norm=True),
    "SwAVHead": lambda: SwAVHead(5, K, 16, D),
}
OPERATORS = {
    "BatchSoftmax": lambda: BatchSoftmax(0.05),
    "Centering": lambda: Centering(K, 0.9, 0.04),
    "Centering, unsharpened": lambda: Centering(K, 0.9, None),
    "NegativeQueue": lambda: NegativeQueue(D, 12),
    "SinkhornKnopp": lambda: SinkhornKnopp(),
    "SinkhornKnopp, queue": lambda: SinkhornKnopp(queue_size=12, embed_dim=D, queue_start="0 steps"),
}
LOSSES = {
    "CrossEntropy": (lambda: CrossEntropy(0.1), "probabilities"),
    "InfoNCE": (lambda: InfoNCE(0.07, "both"), "embedding"),
    "MSE": (lambda: MSE(), "embedding"),
    "MSE of logits": (lambda: MSE("sum"), "logits"),
}
METHODS = {
    "dino": lambda: (DINOHead(5, K, 16, D), None, EMA(), Centering(K), CrossEntropy()),
    "byol": lambda: (MLPHead(5, 16, D, batch_norm=True), MLPPredictor(D, 16), EMA(), None, MSE()),
    "moco": lambda: (MLPHead(5, 16, D), None, EMA(), NegativeQueue(D, 20), InfoNCE()),
    "swav": lambda: (SwAVHead(5, K, 16, D), None, Copy(), SinkhornKnopp(), CrossEntropy()),
}


def test_all_that_ship_are_tried():
    def offered(names):
        return {name.rpartition(":")[2] for name in names}

    assert {name.partition(",")[0] for name in HEADS} == offered(builtin.heads())
    assert {name.partition(",")[0] for name in OPERATORS} == offered(builtin.collapse_operators())
    assert {name.partition(" ")[0] for name in LOSSES} == offered(builtin.losses())


def test_float16_overflows_where_these_numbers_are():
    """The inputs below are such that softmax and Sinkhorn-Knopp in half precision would be visibly wrong."""
    logits = torch.randn(2, 6, K).half()
    wide = (logits.double() / 0.04).softmax(-1)
    assert ((logits / 0.04).softmax(-1).double() - wide).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_embeddings_and_logits_are_float32(name, dtype, tiny):
    """Narrow are the products of the projector's layers, not the prototypes'."""
    branch = Branch(tiny.Backbone(), HEADS[name]())
    with torch.autocast("cpu", dtype):
        seen = branch(tiny.views(dtype=torch.float32))
        scored = None if seen.logits is None else seen.score(seen.embedding)
    assert seen.projection.dtype == dtype
    assert seen.embedding.dtype == torch.float32
    raw = seen.projection.double()
    length = raw.norm(dim=-1, keepdim=True) if branch.head.normalize else 1.0
    torch.testing.assert_close(seen.embedding.double(), raw / length, rtol=1e-6, atol=1e-6)
    if seen.logits is None:
        return
    assert seen.logits.dtype == scored.dtype == torch.float32
    assert torch.equal(scored, seen.logits)
    prototypes = dict(branch.head.prototypes.named_parameters())
    weight = prototypes["weight_v" if "weight_v" in prototypes else "weight"].detach()
    wanted = seen.embedding.double() @ weight.double().T
    if "weight_v" in prototypes:
        wanted = wanted * prototypes["weight_g"].detach().double().T / weight.double().norm(dim=1)
    torch.testing.assert_close(seen.logits.double(), wanted, rtol=1e-5, atol=1e-6)


def outputs(dtype):
    """Answers rounded to half precision, the embedding as a branch gives it, and the same numbers in float64."""
    embeddings, logits = 3 * torch.randn(2, 6, D).to(dtype).float(), torch.randn(2, 6, K).to(dtype)
    prototypes = torch.randn(D, K).double()

    def score(rows):
        return (rows.unsqueeze(-1) * prototypes.to(rows.dtype)).sum(-2)

    narrow, wide = (embeddings, logits), (embeddings.double(), logits.double())
    return [Projection.of(embedding=embedding, logits=scores, score=score) for embedding, scores in (narrow, wide)]


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_answer_in_float32(name, dtype, inside):
    narrow, wide = OPERATORS[name](), OPERATORS[name]().double()
    wide.load_state_dict(narrow.state_dict())
    for step in range(4):
        given, same = outputs(dtype)
        clock = Clock(step, 10, 5)
        with torch.autocast("cpu", dtype, enabled=inside):
            answered = narrow(given, clock)
            narrow.update(given, clock)
        expected = wide(same, clock)
        wide.update(same, clock)
        if answered.kind != "embedding":
            assert answered.values.dtype == torch.float32
        torch.testing.assert_close(answered.values.double(), expected.values, rtol=1e-5, atol=1e-6)
        for name_, buffer in narrow.named_buffers():
            assert buffer.dtype in (torch.float32, torch.long), name_
            torch.testing.assert_close(buffer.double(), wide.get_buffer(name_).double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside"])
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32(name, dtype, inside):
    make, kind = LOSSES[name]
    (given, same), (_, teacher), loss = outputs(dtype), outputs(dtype), make()
    values = teacher.embedding if kind == "embedding" else teacher.logits
    values = values.softmax(-1) if kind == "probabilities" else values
    values, negatives = values.float(), torch.nn.functional.normalize(torch.randn(9, D), dim=-1)
    with torch.autocast("cpu", dtype, enabled=inside):
        got = loss(given, Targets(values, kind, (0, 1), negatives))
    wanted = loss(same, Targets(values.double(), kind, (0, 1), negatives.double()))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)


def accelerated(student, dtype, scale=2.0**12):
    """Steps in half precision on the CPU, which accelerate has for bf16 alone: with the scaler for fp16."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale) if dtype == torch.float16 else None
    accelerator = SimpleNamespace(
        num_processes=1,
        scaler=scaler,
        autocast=lambda: torch.autocast("cpu", dtype),
        backward=lambda loss: (scaler.scale(loss) if scaler else loss).backward(),
        unscale_gradients=lambda optimizer: scaler.unscale_(optimizer) if scaler else None,
    )
    executor = AccelerateExecutor(accelerator)
    executor.prepare(student, student)
    return executor


def stepped(tiny, method, dtype, scale=2.0**12):
    """A step's output, how far it moved the student, the model and its executor."""
    torch.manual_seed(2)
    head, predictor, rule, operator, loss = METHODS[method]()
    branch = Branch(tiny.Backbone(), head, predictor)
    for layer in branch.head.projector:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.normal_(layer.weight, std=0.5)
    model = StudentTeacher(branch, teacher_update=rule, collapse=operator, loss=loss, student_views="globals")
    optimizer = SGD(momentum=0.0).build(parameter_groups(model.student))
    set_rates(optimizer, 1.0, 0.0)
    executor = Executor() if dtype == torch.float32 else accelerated(model.student, dtype, scale)
    model.student.head.before_step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Images that differ in colour: else batch norm makes numbers of what is nearly rounding.
    images = torch.randn(2, 6, 3, 9, 9) + 3 * torch.randn(6, 3, 1, 1)
    output = train_step(model, Views.of(images), optimizer, executor=executor)
    after = model.state_dict()
    moved = torch.cat([(after[name] - before[name]).flatten() for name, _ in model.named_parameters()])
    # SwAV normalises its prototypes before every step.
    kept = all(torch.allclose(after[name], value, rtol=1e-6, atol=1e-7) for name, value in before.items())
    return output, moved, kept, executor


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_float32_but_for_rounding(method, dtype, tiny):
    whole, straight, _, _ = stepped(tiny, method, torch.float32)
    half, moved, _, _ = stepped(tiny, method, dtype)
    few = 60 * torch.finfo(dtype).eps
    torch.testing.assert_close(half.loss, whole.loss, rtol=few, atol=few)
    assert straight.norm() > 0
    assert (moved - straight).norm() < few * straight.norm()
    assert half.loss.dtype == half.targets.values.dtype == half.student.embedding.dtype == torch.float32
    assert half.flags.tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_an_overflow_halves_the_scale_and_moves_nothing(method, tiny):
    output, _, kept, executor = stepped(tiny, method, torch.float16, scale=2.0**100)
    assert output.flags.tolist() == [0, 0, 1]
    assert kept
    assert executor.scale() == 2.0**99
    _, _, kept, executor = stepped(tiny, method, torch.float16)
    assert not kept
    assert executor.scale() == 2.0**12
