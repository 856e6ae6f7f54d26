"""All that two processes do for the tests, in one launch.

    torchrun --nproc-per-node 2 tests/properties/two_processes.py FOLDER

A case is called without arguments and returns what `torch.save` takes; FOLDER/answers/<case>-<rank>.pt gets the answer
or, as a string, the traceback. The tests call the same functions in one process and compare.
"""

import importlib.util
import json
import os
import subprocess
import sys
import traceback
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from datetime import timedelta
from functools import partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.distributed as dist
from rich.console import Console
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from sslkit import distributed
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.cli.main import main as command_line
from sslkit.clock import Clock
from sslkit.collapse import BatchSoftmax, Centering, NegativeQueue, SinkhornKnopp
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.evaluation.shared_backbone import shared
from sslkit.evaluators.features import frozen
from sslkit.launch import train
from sslkit.losses import CrossEntropy, InfoNCE
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.recipe import load
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.teachers import EMA, Copy
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.training.signals import Interruption
from sslkit.training.trainer import Trainer
from sslkit.types import Projection, ViewGroup, Views

ROOT = Path(__file__).parents[2]
LONGEST = 240


def module_at(path):
    """Import a file that lies in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = module_at(ROOT / "tests/conftest.py")


# What processes say to one another


def exchanged():
    """What the functions of `sslkit.distributed`, and those that are made of them, answer here."""
    rank = distributed.rank()
    mine = torch.arange(6.0).view(2, 3) * (rank + 1)
    logits = torch.randn(2, 10, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shard = logits[:, rank * 5 : rank * 5 + 5] if distributed.world_size() > 1 else logits
    centering = Centering(7)
    centering.update(Projection.of(logits=shard))
    return {
        "rank": (rank, distributed.world_size()),
        "sum": distributed.sum_over_processes(mine),
        "max": distributed.max_over_processes(mine - 2 * rank),
        "mean": distributed.mean_over_processes(mine),
        "gather": distributed.gather_over_processes(mine, dim=1),
        "from main": distributed.from_main({"rank": rank}),
        "untouched": mine,
        "center": centering.center,
        "balanced": balance(shard, 0.05, 3),
    }


# Steps

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

STEPPED = {
    "centering": (EMA, 1),
    "centering, accumulated": (EMA, 3),
    "sinkhorn": (Copy, 1),
    "sinkhorn with a queue": (Copy, 1),
    "batch softmax": (EMA, 2),
    "negative queue": (EMA, 2),
    "negatives of queue and batch": (EMA, 1),
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


class Sharding(Executor):
    """Both networks sharded by FSDP2, half of each parameter on each process."""

    def prepare(self, student, teacher):
        mesh = init_device_mesh("cpu", (distributed.world_size(),))
        for network in dict.fromkeys((student, teacher)):
            # The teacher's forward has no backward pass after which it would be sharded again.
            fully_shard(network, mesh=mesh, reshard_after_forward=True)

    def gradient_norms(self, gradients):
        return [norm.full_tensor() for norm in super().gradient_norms(gradients)]

    def state_dict(self, model, optimizer):
        state = super().state_dict(model, optimizer)
        return {**state, "model": {name: _whole(tensor) for name, tensor in state["model"].items()}}


def _whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def stepped(operator, rule=EMA, accumulation=1, batch_norm=False, lr=1e-3, flawed=False, share=None, sharded=False):
    """The state after 3 steps on the whole batch, or on a process's half of it.

    ``flawed``: in the second step the teacher's answers to the last image are not finite, which one-hot targets hide.
    """
    torch.manual_seed(3)
    together = distributed.world_size() > 1
    share = distributed.rank() if together else share
    operator, loss = OPERATORS[operator.split(", ")[0]]()
    student = tiny.branch(None if operator.yields == "embedding" else 11, batch_norm)
    model = StudentTeacher(student, teacher_update=rule(), collapse=operator, loss=loss)
    executor = AccelerateExecutor(accelerator()) if together else Executor()
    if together and sharded:
        executor = Sharding()
    executor.prepare(model.student, model.teacher)
    optimizer = AdamW().build(parameter_groups(model.student))
    set_rates(optimizer, lr, weight_decay=0.1)
    options = {"clip": Clip(0.1), "accumulation": accumulation, "executor": executor}
    taken = []
    if flawed and share != 0:
        model.teacher.register_forward_hook(lambda module, inputs, seen: _spoilt(seen) if len(taken) == 1 else seen)
    for step in range(3):
        views = tiny.views(batch=8, num_local=1)
        mine = views if share is None else views.narrow(4 * share, 4 * share + 4)
        frozen = ["prototypes"] if step == 0 and "prototypes" in student.parts() else []
        taken.append(train_step(model, mine, optimizer, Clock(step, 3, 3), frozen=frozen, **options))
    return executor.state_dict(model, optimizer)["model"] | {"flags": torch.stack([output.flags for output in taken])}


def _spoilt(seen):
    seen.logits[:, -1] = torch.nan
    return seen


def seen_together():
    """What a network with batch statistics of its own in each process answers to 7 images, and its statistics after."""
    torch.manual_seed(5)
    images = torch.randn(7, 3, 9, 9, dtype=torch.float64)
    backbone = TimmBackbone("test_resnet").double()
    for buffer in backbone.buffers():
        if buffer.is_floating_point():
            buffer += 0.5 * distributed.rank()
    mine = {name: buffer.clone() for name, buffer in backbone.named_buffers()}
    meetings = []
    with shared(backbone, lambda: meetings.append(1)) as together, frozen(backbone), torch.no_grad():
        together.eval()
        answers = [together(images[:count]).cls for count in (7, 1, 4)]
    kept = all(torch.equal(buffer, mine[name]) for name, buffer in backbone.named_buffers())
    return {"answers": answers, "statistics kept": kept, "meetings": len(meetings), "dim": together.embed_dim}


def left_together():
    """What work gives that the last process is asked to leave at its third batch, and how far each got."""
    interruption, batches = Interruption(lambda: None), []

    def work():
        for batch in range(5):
            interruption.asked |= batch == 2 and distributed.rank() == distributed.world_size() - 1
            interruption.meet(torch.device("cpu"))
            batches.append(batch)
        return "done"

    return interruption.attempt(work), batches, interruption.asked


# Runs

STEPS, STOP = 10, 6

SMALL = [
    "--data.train", "{Textures: {num_images: 300, size: 16}}", "--data.test", "null",
    "--views.canvas_size", "16", "--views.global_size", "12",
    "--optimization.batch_size", "64", "--optimization.steps", str(STEPS),
    "--precision", "fp32", "--runtime.device", "cpu", "--runtime.num_workers", "0",
    "--runtime.log_every", "1", "--runtime.checkpoint_every", "9 epochs",
    "--evaluation.evaluators", "[]", "--evaluation.baselines", "[]", "--evaluation.every", "null",
]  # fmt: skip
"""300 images are 4 steps an epoch."""

NARROW = ["--method.backbone.model_args", "{channels: [8, 8, 8, 16], stem_width: 4}"]

RUN = [
    *SMALL, *NARROW, "--method.backbone.model_args.norm_layer", "groupnorm1",
    "--method.backbone.drop_path_rate", "0.4", "--views.num_local_views", "1", "--views.local_size", "8",
    "--optimization.lr", "{Cosine: {start: 0.005, end: 0.0001, warmup: 3 steps}}",
    "--optimization.weight_decay", "{Cosine: {start: 0.04, end: 0.4}}",
]  # fmt: skip

CENTERED = "{DINOHead: {num_prototypes: 24, hidden_dim: 16, embed_dim: 8, num_layers: 2, batch_norm: false}}"

METHODS = {
    "dino": [
        "--method.head", CENTERED, "--optimization.freeze", "{prototypes: 3 steps}",
        "--method.collapse.temperature", "{Warmup: {start: 0.04, end: 0.07, over: 2 epochs}}",
        "--optimization.clip_grad_norm", "0.02",
    ],
    "byol": [
        "--method.head", "{MLPHead: {hidden_dim: 16, embed_dim: 8, batch_norm: false}}",
        "--method.predictor", "{MLPPredictor: {hidden_dim: 16, batch_norm: false}}",
        "--optimization.clip_grad_norm", "0.5", "--optimization.clip_per", "all",
    ],
    # 128 keys a step: full, and begun anew, in the third step.
    "moco-v2": ["--method.head", "{MLPHead: {hidden_dim: 16, embed_dim: 8}}", "--method.collapse.size", "300"],
    # Filled from the third step on, full and in use from the sixth on, then the oldest fall out.
    "swav": [
        "--method.head", CENTERED, "--optimization.freeze", "{prototypes: 1 epochs}",
        "--method.collapse", "{SinkhornKnopp: {queue_size: 192, queue_start: 2 steps}}",
    ],
}  # fmt: skip


def trained(folder, method, *words, dtype=torch.float64, resume=False, stop=None, norms=None, settings=RUN):
    """Train a shipped tiny recipe and return what it leaves.

    Args:
        folder: the run's.
        method: whose recipe.
        words: overrides besides.
        dtype: of networks and views.
        resume: go on with what lies in the folder.
        stop: interrupt it after so many steps.
        norms: what is done to each batch norm first.
        settings: overrides before those of METHODS.
    """
    methods = METHODS[method] if settings is RUN else []
    recipe = load(ROOT / f"recipes/{method}-cifar10-tiny.yaml", [*settings, *methods, *words])
    with _precise(dtype), _watched(stop, norms) as keys:
        run = train(recipe, folder, resume, Console(file=StringIO(), width=120))
    newest = sorted(run.folder.checkpoints.glob("step-*"))[-1]
    return {
        "step": run.clock.step,
        "interrupted": run.interrupted,
        "keys": keys,
        "rows": read_metrics(run.folder.metrics),
        "world_size": json.loads((run.folder.path / "environment.json").read_text())["world_size"],
        "saved": load_file(newest / "state.safetensors"),
        "held": {name: value.clone() for name, value in run.model.state_dict().items()},
    }


@contextmanager
def _precise(dtype):
    make_views, before = Trainer.make_views, torch.get_default_dtype()

    def make(run, batch, epoch):
        views = make_views(run, batch, epoch)
        return Views(tuple(ViewGroup(images.to(dtype), ids) for images, ids in views.groups), views.num_globals)

    torch.set_default_dtype(dtype)
    Trainer.make_views = make
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        Trainer.make_views = make_views


@contextmanager
def _watched(stop, norms):
    """Give the keys of the images of all processes in each step."""
    seen, take = {}, Trainer._step

    def step(run, batch):
        seen[run.clock.step] = distributed.gather_over_processes(batch.keys).tolist()
        if run.clock.step + 1 == stop:
            run.interrupted = True
        for module in run.model.modules():
            if norms is not None and isinstance(module, _BatchNorm):
                norms(module)
        return take(run, batch)

    Trainer._step = step
    try:
        yield seen
    finally:
        Trainer._step = take


NORMED = [*SMALL, *NARROW, "--optimization.lr", "0.001"]
"""The batch norms that the recipes ship with; no drop path, no other views."""


EVALUATED = [
    "--data.test", "{Textures: {num_images: 45, size: 16, split: test}}", "--evaluation.batch_size", "16",
    "--evaluation.evaluators", "[{KNN: {k: [5, 20]}}]", "--evaluation.baselines", "[untrained, raw-pixels]",
    "--evaluation.every", "1 steps", "--optimization.steps", "2",
]  # fmt: skip
"""Batches of 16, 16 and 13."""


def refused(folder, *words):
    """What the command line says to a recipe that cannot be, and its exit code."""
    said, printed = StringIO(), StringIO()
    with redirect_stderr(said), redirect_stdout(printed):
        code = command_line(["train", "dino-cifar10-tiny", "--run-dir", str(folder), *SMALL, *words])
    return code, said.getvalue() + printed.getvalue(), folder.exists()


def cases(folder):
    """Every case by name."""
    named = {"exchanged": exchanged}
    for name, (rule, accumulation) in STEPPED.items():
        named[name] = partial(stepped, name, rule, accumulation)
    named["sharded"] = partial(stepped, "centering", sharded=True)
    named["flawed and sharded"] = partial(stepped, "one-hot", flawed=True, sharded=True)
    named["flawed"] = partial(stepped, "one-hot", flawed=True)
    # Nothing learns, so each process must end with the statistics of its own images.
    named["own statistics"] = partial(stepped, "centering", batch_norm=True, lr=0.0)
    for method in METHODS:
        named[method] = partial(trained, folder / method, method)
        named[f"{method} float32"] = partial(trained, folder / f"{method}-float32", method, dtype=torch.float32)
    named["swav accumulated"] = partial(trained, folder / "accumulated", "swav", "--runtime.accumulation", "2")
    for method in ("moco-v2", "swav"):
        named[f"{method} from one"] = partial(trained, folder / f"{method}-from-one", method, resume=True)
        named[f"{method} to one"] = partial(trained, folder / f"{method}-to-one", method, stop=STOP)
    init_from = ["--method.init_from.weights", str(folder / "start"), "--optimization.steps", "2"]
    named["init_from"] = partial(trained, folder / "init-from", "byol", *init_from)
    named["batch norm"] = partial(trained, folder / "normed", "dino", settings=NORMED)
    named["batch norm off"] = partial(trained, folder / "off", "dino", settings=NORMED, norms=_BatchNorm.eval)
    named["seen together"] = seen_together
    named["left together"] = left_together
    named["evaluated"] = partial(
        trained, folder / "evaluated", "dino", *EVALUATED, dtype=torch.float32, settings=NORMED
    )
    named["odd batch"] = partial(refused, folder / "odd", "--optimization.batch_size", "63")
    return named


# The launch


def launch(folder):
    """Have two processes work through the cases in a folder, and return what gives (rank 0's, rank 1's answer)."""
    for method in ("moco-v2", "swav"):
        trained(folder / f"{method}-from-one", method, stop=STOP)
    trained(folder / "start", "moco-v2", "--optimization.steps", "1")
    (folder / "answers").mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__, folder]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    def answers(case):
        both = [torch.load(folder / f"answers/{case}-{rank}.pt") for rank in (0, 1)]
        assert not any(isinstance(answer, str) for answer in both), "\n".join(map(str, both))
        return both

    return answers


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    for name, case in cases(folder).items():
        torch.manual_seed(0)
        try:
            answer = case()
        except BaseException:
            answer = traceback.format_exc()
        torch.save(answer, folder / f"answers/{name}-{distributed.rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
