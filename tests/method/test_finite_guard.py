"""A step with a number that is not finite leaves no trace; a sound one is what it would be without anyone looking."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sslkit.clock import Clock
from sslkit.collapse import Centering, NegativeQueue, SinkhornKnopp
from sslkit.contracts import CollapseOperator, Loss, Predictor, TeacherUpdate
from sslkit.losses import MSE, CrossEntropy, InfoNCE
from sslkit.method import finite_guard
from sslkit.method.executor import Executor
from sslkit.method.finite_guard import CHECKED, nonfinite_flags, nonfinite_state
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.larc import LARC
from sslkit.optimizers.lars import LARS
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.optimizers.sgd import SGD
from sslkit.teachers import EMA, Copy, PreviousEpoch, PreviousStep
from sslkit.types import Projection, Targets, ViewGroup, Views, matching_pairs

STEPS = 6


class Linear(Predictor):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, projection):
        return self.linear(projection)


class Counting(CollapseOperator):
    """Hands the embeddings on, and counts in a state of whole numbers."""

    reads = yields = "embedding"

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, teacher, clock=None):
        return Targets(teacher.embedding, "embedding", teacher.view_ids)

    def update(self, teacher, clock=None):
        self.count += 1


class Correlation(Loss):
    accepts = frozenset({"embedding"})

    def forward(self, student, targets):
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        return -sum((student.embedding[s] * targets.values[t]).sum(-1).mean() for t, s in pairs) / len(pairs)


class AtOnce(TeacherUpdate):
    def after_step(self, student, teacher, clock=None):
        teacher.load_state_dict(student.state_dict())


class Own:
    """An optimizer that has never heard of ``found_inf``."""

    decays_vectors = False

    def build(self, groups):
        return torch.optim.RMSprop([dict(group) for group in groups], lr=0.1)


METHODS = {
    "dino": (lambda: EMA(0.9), lambda: Centering(11), CrossEntropy, AdamW),
    "byol": (lambda: EMA(0.9), lambda: None, MSE, LARS),
    "moco": (lambda: EMA(0.9), lambda: NegativeQueue(6, 21), InfoNCE, SGD),
    "swav": (Copy, lambda: SinkhornKnopp(queue_size=8, embed_dim=6, queue_start="0 steps"), CrossEntropy, LARC),
    "previous step": (PreviousStep, lambda: Centering(11), CrossEntropy, AdamW),
    "previous epoch": (PreviousEpoch, lambda: Centering(11), CrossEntropy, AdamW),
    "nobody's": (AtOnce, Counting, Correlation, Own),
}


@pytest.fixture(params=["read at once", "on the device"])
def place(request, monkeypatch):
    """Have flags read as on a CPU, or left where they are as on a GPU."""
    if request.param == "on the device":
        monkeypatch.setattr("sslkit.snapshot.READ_AT_ONCE", ())
    return request.param


@pytest.fixture
def make(tiny):
    def make(name, dtype=torch.float32):
        torch.manual_seed(5)
        rule, operator, loss, optimizer = (part() for part in METHODS[name])
        yields = "embedding" if operator is None else operator.yields
        student = tiny.branch(None if yields == "embedding" else 11, True, 0.2, Linear() if name == "byol" else None)
        model = StudentTeacher(student, teacher_update=rule, collapse=operator, loss=loss).to(dtype)
        built = optimizer.build(parameter_groups(model.student, optimizer.decays_vectors))
        set_rates(built, 0.05, 0.1)
        return model, built

    return make


def take(model, optimizer, number, tiny, spoil=lambda views: views, dtype=torch.float32):
    torch.manual_seed(number)
    views = spoil(tiny.views(batch=4, num_local=1, dtype=dtype))
    return train_step(model, views, optimizer, Clock(number, STEPS, 2), clip=Clip(0.5))


def everything(model, optimizer):
    """Return every number that a later step reads."""
    flat = {name: value.clone() for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        flat |= {f"{index}.{key}": torch.as_tensor(value).clone() for key, value in state.items()}
    return flat


def assert_same(mine, theirs):
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


def with_nan(views):
    """One pixel of one image of one global view."""
    images = views.groups[0].images.clone()
    images[0, 2, 1, 4, 4] = math.nan
    return Views((ViewGroup(images, views.groups[0].view_ids), *views.groups[1:]), views.num_globals)


@pytest.mark.parametrize("name", METHODS)
def test_a_flawed_step_leaves_no_trace(make, tiny, place, name):
    model, optimizer = make(name)
    for number in range(3):
        take(model, optimizer, number, tiny)
    before = everything(model, optimizer)
    twin, of_twin = copy.deepcopy((model, optimizer))
    flags = take(model, optimizer, 3, tiny, with_nan).flags
    assert flags.tolist() == [1, 1, 1]
    assert_same(everything(model, optimizer), before)
    for number in (4, 5):
        assert take(model, optimizer, number, tiny).flags.tolist() == [0, 0, 0]
        take(twin, of_twin, number, tiny)
    assert_same(everything(model, optimizer), everything(twin, of_twin))
    assert not torch.equal(everything(model, optimizer)["student.backbone.conv.weight"],
                           before["student.backbone.conv.weight"])  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_flawed_first_step_leaves_a_fresh_start(make, tiny, place, name):
    (model, optimizer), (twin, of_twin) = make(name), make(name)
    take(model, optimizer, 0, tiny, with_nan)
    assert_same(model.state_dict(), twin.state_dict())
    for number in (1, 2, 3):
        take(model, optimizer, number, tiny)
        take(twin, of_twin, number, tiny)
    assert_same(everything(model, optimizer), everything(twin, of_twin))


@pytest.mark.parametrize("name", METHODS)
def test_looking_changes_nothing(make, tiny, place, name, monkeypatch):
    seen, unseen = make(name), make(name)
    for number in range(4):
        take(*seen, number, tiny)
    monkeypatch.setattr(finite_guard, "apply_if_finite", lambda flags, optimizer, move, written: move())
    monkeypatch.setattr(finite_guard.TensorSnapshot, "restore_if", lambda kept, flags: None)
    for number in range(4):
        take(*unseen, number, tiny)
    assert_same(everything(*seen), everything(*unseen))


class Waits(TorchDispatchMode):
    """Counts the numbers that are read from the device."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


# SwAV's queue asks whether it is full until it is; four steps are enough.
@pytest.mark.parametrize("name", METHODS)
def test_nobody_waits_for_a_step(make, tiny, monkeypatch, name):
    monkeypatch.setattr("sslkit.snapshot.READ_AT_ONCE", ())
    model, optimizer = make(name)
    for number in range(4):
        take(model, optimizer, number, tiny)
    for spoil in (lambda views: views, with_nan):
        with Waits() as waited:
            take(model, optimizer, 4, tiny, spoil)
        assert (waited.count > 0) == (name == "nobody's")


# Where the flaw is.


class Spoilt(torch.autograd.Function):
    """The identity, whose gradient is infinite for one element."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone()
        gradient.view(-1)[0] = math.inf
        return gradient


class Huge(torch.autograd.Function):
    """The identity, whose gradient is so large that its square is not finite_guard."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1e30


@pytest.mark.parametrize("spoil", [Spoilt, Huge])
@pytest.mark.parametrize("clip", [None, Clip(0.5), Clip(0.5, "all")])
def test_a_flaw_in_a_gradient_alone_is_found(make, tiny, place, clip, spoil):
    model, optimizer = make("dino")
    take(model, optimizer, 0, tiny)
    before = everything(model, optimizer)
    hook = model.student.backbone.linear.register_forward_hook(lambda module, inputs, output: spoil.apply(output))
    views = tiny.views(batch=4, num_local=1, dtype=torch.float32)
    assert train_step(model, views, optimizer, Clock(1, STEPS, 2), clip=clip).flags.tolist() == [0, 0, 1]
    assert_same(everything(model, optimizer), before)
    hook.remove()
    assert take(model, optimizer, 1, tiny).flags.tolist() == [0, 0, 0]


def test_a_flaw_in_a_frozen_part_is_none(make, tiny):
    model, optimizer = make("dino")
    weight = model.student.head.prototypes.weight
    weight.register_hook(lambda gradient: gradient * math.nan)
    views = tiny.views(batch=4, num_local=1, dtype=torch.float32)
    output = train_step(model, views, optimizer, Clock(0, STEPS, 2), frozen=["prototypes"])
    assert output.flags.tolist() == [0, 0, 0]
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_flaw_that_one_hot_targets_hide_is_found(make, tiny, place):
    """Argmax of what is no number is a class all the same; the center would be no number."""
    model, optimizer = make("dino")
    model.collapse.temperature = 0
    before = everything(model, optimizer)
    model.teacher.register_forward_hook(lambda module, inputs, seen: seen._each(spoil_last, seen.view_ids))
    output = take(model, optimizer, 0, tiny)
    assert output.loss.isfinite()
    assert output.flags.tolist() == [0, 1, 0]
    assert_same(model.state_dict(), {name: before[name] for name in model.state_dict()})


def spoil_last(tensor):
    tensor = tensor.clone()
    tensor[-1, -1] = -math.inf
    return tensor


def test_a_flaw_of_the_loss_alone_is_found():
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    teacher = Projection.of(embedding=torch.ones(2, 3, 4), logits=torch.ones(2, 3, 5))
    sound = [0.0] * len(CHECKED)
    assert nonfinite_flags(torch.tensor(2.0), teacher, optimizer).tolist() == sound
    for loss in (math.nan, math.inf, -math.inf):
        assert nonfinite_flags(torch.tensor(loss), teacher, optimizer).tolist() == [1, 0, 0]
    weight.grad = torch.tensor([1e-40, -1e18])
    assert nonfinite_flags(torch.tensor(2.0, dtype=torch.float64), teacher, optimizer).tolist() == sound
    # Its square is infinite, and would be a second moment.
    weight.grad = torch.tensor([0.0, -1e30])
    assert nonfinite_flags(torch.tensor(2.0), teacher, optimizer).tolist() == [0, 0, 1]


def test_a_state_that_a_flawed_step_widens_keeps_its_numbers(make, tiny, place):
    model, optimizer = make("dino", torch.float64)
    model.collapse.center = torch.randn(11)
    before = {name: value.double() for name, value in model.state_dict().items()}
    take(model, optimizer, 0, tiny, with_nan, torch.float64)
    assert_same({name: value.double() for name, value in model.state_dict().items()}, before)


@pytest.mark.parametrize("kind", [SGD, LARS, LARC])
def test_our_optimizers_work_with_torchs_scaler(kind):
    """It hands over scaled gradients, and where they overflowed skips without asking."""
    torch.manual_seed(0)
    plain, scaled = nn.Linear(3, 2), nn.Linear(3, 2)
    scaled.load_state_dict(plain.state_dict())
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizers = [kind().build(parameter_groups(net, kind().decays_vectors)) for net in (plain, scaled)]
    for optimizer in optimizers:
        set_rates(optimizer, 0.1, 0.01)
    for value in (1.0, math.inf, 2.0):
        rows = torch.full((4, 3), value)
        if value < math.inf:
            optimizers[0].zero_grad()
            plain(rows).square().mean().backward()
            optimizers[0].step()
        optimizers[1].zero_grad()
        scaler.scale(scaled(rows).square().mean()).backward()
        scaler.step(optimizers[1])
        scaler.update()
    assert_same(scaled.state_dict(), plain.state_dict())
    assert scaler.get_scale() == 4


class Scaled(Executor):
    """Scales as torch's documentation has it: the scaler takes the step."""

    def __init__(self):
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def backward(self, loss):
        self.scaler.scale(loss).backward()

    def unscale(self, optimizer):
        self.scaler.unscale_(optimizer)

    def step(self, optimizer):
        self.scaler.step(optimizer)
        self.scaler.update()


@pytest.mark.parametrize("name", ["dino", "moco"])
def test_a_scaler_may_take_the_step(make, tiny, monkeypatch, name):
    monkeypatch.setattr("sslkit.snapshot.READ_AT_ONCE", ())
    (model, optimizer), (twin, of_twin), executor = make(name), make(name), Scaled()
    for number in range(4):
        for one, its, run in ((model, optimizer, executor), (twin, of_twin, None)):
            torch.manual_seed(number)
            views = tiny.views(batch=4, num_local=1, dtype=torch.float32)
            views = with_nan(views) if number == 2 else views
            train_step(one, views, its, Clock(number, STEPS, 2), executor=run)
    assert_same(model.state_dict(), twin.state_dict())
    assert executor.scaler.get_scale() == 2**9


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in METHODS if name != "nobody's"])
def test_on_a_gpu_nobody_waits_and_no_trace_is_left(make, tiny, name):
    model, _ = make(name)
    optimizer = METHODS[name][3]()
    model.cuda()
    built = optimizer.build(parameter_groups(model.student, optimizer.decays_vectors))
    set_rates(built, 0.05, 0.1)

    def on_gpu(views):
        return Views(tuple(ViewGroup(group.images.cuda(), group.view_ids) for group in views.groups))

    for number in range(4):
        take(model, built, number, tiny, on_gpu)
    before = everything(model, built)
    torch.cuda.synchronize()
    sound = on_gpu(tiny.views(batch=4, num_local=1, dtype=torch.float32))
    spoilt = on_gpu(with_nan(tiny.views(batch=4, num_local=1, dtype=torch.float32)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        flawed = train_step(model, spoilt, built, Clock(4, STEPS, 2), clip=Clip(0.5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert flawed.flags.tolist() == [1, 1, 1]
    assert_same(everything(model, built), before)
    assert train_step(model, sound, built, Clock(4, STEPS, 2), clip=Clip(0.5)).flags.tolist() == [0, 0, 0]


@pytest.mark.parametrize("where", ["weight", "buffer", "teacher", "moment", None])
def test_what_an_update_left_that_is_not_finite_is_named(tiny, where):
    torch.manual_seed(0)
    model = StudentTeacher(
        tiny.branch(batch_norm=True, dtype=torch.float32),
        teacher_update=EMA(),
        collapse=Centering(11),
        loss=CrossEntropy(),
    )
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1, momentum=0.9)
    train_step(model, tiny.views(dtype=torch.float32), optimizer)
    first = next(model.student.parameters())
    places = {
        "weight": (first, "student."),
        "buffer": (model.collapse.center, "collapse.center"),
        "teacher": (next(model.teacher.parameters()), "teacher."),
        "moment": (optimizer.state[first]["momentum_buffer"], "momentum_buffer of student."),
    }
    assert nonfinite_state(model, optimizer) == []
    if where:
        tensor, name = places[where]
        with torch.no_grad():
            tensor.view(-1)[-1] = torch.inf
        (found,) = nonfinite_state(model, optimizer)
        assert found.startswith(name)
