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
from sslkit.collapse import BatchSoftmax, Centering, SinkhornKnopp
from sslkit.losses import CrossEntropy
from sslkit.student_teacher import StudentTeacher
from sslkit.teachers import EMA, Copy
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.training.executor import Executor
from sslkit.training.optimizers import AdamW, parameter_groups
from sslkit.training.step import Clip, train_step

OPERATORS = {"centering": lambda: Centering(11), "sinkhorn": SinkhornKnopp, "batch softmax": BatchSoftmax}


def accelerator():
    """What an executor asks of accelerate, in full precision on two processes of a CPU."""
    return SimpleNamespace(
        num_processes=2,
        device=torch.device("cpu"),
        autocast=nullcontext,
        no_sync=lambda wrapped: wrapped.no_sync(),
        backward=lambda loss: loss.backward(),
        unscale_gradients=lambda optimizer: None,
    )


def trained(tiny, operator, rule, accumulation, rank=None):
    torch.manual_seed(3)
    model = StudentTeacher(tiny.branch(), teacher_update=rule(), collapse=OPERATORS[operator](), loss=CrossEntropy())
    optimizer = AdamW().build(parameter_groups(model.student))
    executor = Executor() if rank is None else AccelerateExecutor(accelerator(), model.student)
    options = {"clip": Clip(0.1), "accumulation": accumulation, "executor": executor}
    for step in range(3):
        views = tiny.views(batch=8, num_local=1)
        mine = views if rank is None else views.narrow(4 * rank, 4 * rank + 4)
        frozen = ["prototypes"] if step == 0 else []
        train_step(model, mine, optimizer, Clock(step, 3, 3), frozen=frozen, **options)
    return {name: value.tolist() for name, value in model.state_dict().items()}


def _work(rank, rendezvous, results, tiny, *case):
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
        results.put(trained(tiny, *case, rank=rank))
        dist.destroy_process_group()
    except Exception:
        results.put(traceback.format_exc())


@pytest.mark.skipif(
    sys.platform != "linux" or torch.cuda.is_available(),
    reason="forks, which autograd allows only where it has no accelerator",
)
@pytest.mark.parametrize(
    ("operator", "rule", "accumulation"),
    [("centering", EMA, 1), ("centering", EMA, 3), ("sinkhorn", Copy, 1), ("batch softmax", EMA, 2)],
)
def test_two_processes_are_one(tiny, tmp_path, operator, rule, accumulation):
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    case = (tiny, operator, rule, accumulation)
    workers = [
        fork.Process(target=_work, args=(rank, tmp_path / "meet", results, *case), daemon=True) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    states = [results.get(timeout=60) for _ in workers]
    alone = trained(*case)
    for state in states:
        assert isinstance(state, dict), state
        assert state.keys() == alone.keys()
        for name, value in alone.items():
            mine, whole = (torch.tensor(numbers, dtype=torch.float64) for numbers in (state[name], value))
            torch.testing.assert_close(mine, whole, rtol=1e-9, atol=1e-13)
