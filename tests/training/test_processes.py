"""Two processes with half a batch each take the step of one process with the whole batch."""

import multiprocessing
import sys
import traceback
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from sslkit.clock import Clock
from sslkit.collapse import BatchSoftmax, Centering, NegativeQueue, SinkhornKnopp
from sslkit.losses import CrossEntropy, InfoNCE
from sslkit.student_teacher import StudentTeacher
from sslkit.teachers import EMA, Copy
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.training.executor import Executor
from sslkit.training.optimizers import AdamW, parameter_groups, set_rates
from sslkit.training.step import Clip, train_step

pytestmark = pytest.mark.forks

OPERATORS = {
    "centering": lambda: (Centering(11), CrossEntropy()),
    "sinkhorn": lambda: (SinkhornKnopp(), CrossEntropy()),
    # Batches of 8: the queue is full, and used, from the third step on.
    "sinkhorn with a queue": lambda: (SinkhornKnopp(queue_size=18, embed_dim=6, queue_start="0 steps"), CrossEntropy()),
    "one-hot": lambda: (Centering(11, temperature=0), CrossEntropy()),
    "batch softmax": lambda: (BatchSoftmax(), CrossEntropy()),
    "negative queue": lambda: (NegativeQueue(6, 20), InfoNCE()),
    "negatives of queue and batch": lambda: (NegativeQueue(6, 20), InfoNCE(negatives="both")),
}


def accelerator():
    """What an executor asks of accelerate, in full precision on two processes of a CPU."""
    return SimpleNamespace(
        num_processes=2,
        device=torch.device("cpu"),
        autocast=nullcontext,
        no_sync=lambda wrapped: wrapped.no_sync(),
        backward=lambda loss: loss.backward(),
        unscale_gradients=lambda optimizer: None,
        scaler=None,
    )


def trained(tiny, operator, rule, accumulation, batch_norm=False, lr=1e-3, flawed=False, rank=None):
    """The state after 3 steps on the whole batch, or on a rank's half of it.

    ``flawed``: in the second step the teacher's answers to the last image are not finite, which one-hot targets hide.
    """
    torch.manual_seed(3)
    operator, loss = OPERATORS[operator]()
    student = tiny.branch(None if operator.yields == "embedding" else 11, batch_norm)
    model = StudentTeacher(student, teacher_update=rule(), collapse=operator, loss=loss)
    optimizer = AdamW().build(parameter_groups(model.student))
    set_rates(optimizer, lr, weight_decay=0.1)
    executor = AccelerateExecutor(accelerator(), model.student) if dist.is_initialized() else Executor()
    options = {"clip": Clip(0.1), "accumulation": accumulation, "executor": executor}
    taken = []
    if flawed and rank != 0:
        model.teacher.register_forward_hook(lambda module, inputs, seen: spoilt(seen) if len(taken) == 1 else seen)
    for step in range(3):
        views = tiny.views(batch=8, num_local=1)
        mine = views if rank is None else views.narrow(4 * rank, 4 * rank + 4)
        frozen = ["prototypes"] if step == 0 and "prototypes" in student.parts() else []
        taken.append(train_step(model, mine, optimizer, Clock(step, 3, 3), frozen=frozen, **options))
    if flawed:
        assert [output.flaws.tolist() for output in taken] == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    return {name: value.tolist() for name, value in model.state_dict().items()}


def spoilt(seen):
    seen.logits[:, -1] = torch.nan
    return seen


def _work(rank, rendezvous, results, case):
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
        results.put((rank, trained(*case, rank=rank)))
        dist.destroy_process_group()
    except Exception:
        results.put((rank, traceback.format_exc()))


def in_two_processes(rendezvous, case):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    for rank in (0, 1):
        fork.Process(target=_work, args=(rank, rendezvous, results, case), daemon=True).start()
    by_rank = dict(results.get(timeout=60) for _ in range(2))
    assert all(isinstance(state, dict) for state in by_rank.values()), by_rank
    return by_rank


def assert_equal(state, expected):
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        mine, whole = (torch.tensor(numbers, dtype=torch.float64) for numbers in (state[name], value))
        torch.testing.assert_close(mine, whole, rtol=1e-9, atol=1e-13)


needs_fork = pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(),
    reason="forks, which autograd allows only where it has no accelerator",
)


@needs_fork
@pytest.mark.parametrize(
    ("operator", "rule", "accumulation"),
    [
        ("centering", EMA, 1),
        ("centering", EMA, 3),
        ("sinkhorn", Copy, 1),
        ("sinkhorn with a queue", Copy, 1),
        ("batch softmax", EMA, 2),
        ("negative queue", EMA, 2),
        ("negatives of queue and batch", EMA, 1),
    ],
)
def test_two_processes_are_one(tiny, tmp_path, operator, rule, accumulation):
    case = (tiny, operator, rule, accumulation)
    alone = trained(*case)
    for state in in_two_processes(tmp_path / "meet", case).values():
        assert_equal(state, alone)


@needs_fork
def test_what_is_not_finite_in_one_process_holds_up_all(tiny, tmp_path):
    case = (tiny, "one-hot", EMA, 1, False, 1e-3, True)
    alone, sound = trained(*case), trained(*case[:-1])
    assert alone["collapse.center"] != sound["collapse.center"]
    for state in in_two_processes(tmp_path / "meet", case).values():
        assert_equal(state, alone)


@needs_fork
def test_each_process_keeps_its_own_batch_statistics(tiny, tmp_path):
    # Nothing learns, so each process must end with the statistics of its own images.
    case = (tiny, "centering", EMA, 1, True, 0.0)
    for rank, state in in_two_processes(tmp_path / "meet", case).items():
        alone = trained(*case, rank=rank)
        buffers = [name for name in alone if ".1.running_" in name]
        assert len(buffers) == 4
        assert_equal({name: state[name] for name in buffers}, {name: alone[name] for name in buffers})
