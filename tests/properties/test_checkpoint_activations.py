"""Activations that are computed again change memory and nothing else."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.cli.main import main
from sslkit.clock import Clock
from sslkit.collapse import Centering, NegativeQueue, SinkhornKnopp
from sslkit.errors import NotSupported
from sslkit.explain.memory import estimate_memory
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor
from sslkit.heads.swav_head import SwAVHead
from sslkit.losses import MSE, CrossEntropy, InfoNCE
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.optimizers.sgd import SGD
from sslkit.recipe.model import build_model
from sslkit.recipe.sections import Method
from sslkit.teachers import EMA, Copy
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.types import Views

CPU = torch.device("cpu")
RESNET = {"name": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 6]}, "drop_path_rate": 0.5}
VIT = {"name": "test_vit", "model_args": {"dynamic_img_size": True, "depth": 3}, "drop_path_rate": 0.5}
TINY = str(Path(__file__).parents[1] / "tiny_parts.py")
TINY_RECIPE = """\
method: {backbone: TinyBackbone, head: TinyHead, teacher: TinyTeacher, collapse: TinyOperator, loss: TinyLoss}
views: TinyViews
data: {train: TinyImages}
optimization: {optimizer: TinyOptimizer, batch_size: 8, epochs: 1, lr: 0.1}
"""
METHODS = {
    "dino": lambda dim: ((DINOHead(dim, 12, 8, 6), EMA(), Centering(12), CrossEntropy()), {}),
    "byol": lambda dim: (
        (MLPHead(dim, 8, 6, batch_norm=True), EMA(), None, MSE(), MLPPredictor(6)),
        {"student_views": "globals", "separate_views": True},
    ),
    "moco": lambda dim: ((MLPHead(dim, 8, 6), EMA(), NegativeQueue(6, 20), InfoNCE()), {"batch_norm": 2}),
    "swav": lambda dim: ((SwAVHead(dim, 12, 8, 6), Copy(), SinkhornKnopp(), CrossEntropy()), {}),
}


def accelerator(processes):
    return SimpleNamespace(
        num_processes=processes,
        device=CPU,
        autocast=nullcontext,
        no_sync=lambda wrapped: wrapped.no_sync() if processes > 1 else nullcontext(),
        backward=lambda loss: loss.backward(),
        unscale_gradients=lambda optimizer: None,
        scaler=None,
    )


def trained(again, method="dino", backbone=RESNET, accumulation=1, processes=1, compiled=False, spoilt=None):
    """Everything after three steps in float64, with a loss a step."""
    torch.manual_seed(3)
    network = TimmBackbone(**backbone)
    parts, options = METHODS[method](network.embed_dim)
    model = build_model(Method(network, *parts, **options), None, CPU, again).double()
    if compiled:
        model.student.backbone.compile()
    optimizer = AdamW().build(parameter_groups(model.student))
    set_rates(optimizer, 1e-2, weight_decay=0.1)
    executor, losses = AccelerateExecutor(accelerator(processes)), []
    executor.prepare(model.student, model.teacher)
    for step in range(3):
        executor.start_step(0, step)
        views = Views.of([torch.randn(4, 3, size, size, dtype=torch.float64) for size in (32, 32, 16)])
        if step == spoilt:
            views.groups[0].images[0, 0] = torch.nan
        output = train_step(
            model, views, optimizer, Clock(step, 3, 3), clip=Clip(0.1), accumulation=accumulation, executor=executor
        )
        losses.append(output.loss)
    states = optimizer.state_dict()["state"]
    moments = {f"{i}.{name}": value for i, state in states.items() for name, value in state.items()}
    return model.state_dict() | moments | {"losses": torch.stack(losses), "draw": torch.rand(3)}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name].nan_to_num(), theirs[name].nan_to_num())]
    assert not different


CASES = [*((method, RESNET, 1) for method in METHODS), ("dino", RESNET, 2), ("dino", VIT, 1), ("swav", VIT, 2)]


@pytest.mark.parametrize(("method", "backbone", "accumulation"), CASES)
def test_nothing_else_changes(method, backbone, accumulation):
    plain, again = (trained(on, method, backbone, accumulation) for on in (False, True))
    assert_same(plain, again)


def test_statistics_move_and_without_putting_them_back_they_would_move_twice(monkeypatch):
    plain = trained(False)
    counts = [name for name in plain if name.startswith("student") and name.endswith("num_batches_tracked")]
    assert len(counts) > 5
    assert {int(plain[name]) for name in counts} == {6}  # three steps at two resolutions
    monkeypatch.setattr(TimmBackbone, "recomputes", property(lambda self: False, lambda self, value: None))
    twice = trained(True)
    assert max(int(twice[name]) for name in counts) > 6


def test_a_step_that_moves_nothing_moves_no_statistics_either():
    plain, again = trained(False, spoilt=1), trained(True, spoilt=1)
    assert plain["losses"][1].isnan()
    assert_same(plain, again)


def test_gradients_are_exchanged_once(tmp_path):
    """torch's wrapper for several processes refuses a parameter that is ready twice; one process shows it too."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        assert_same(trained(True, processes=2, accumulation=2), trained(False, accumulation=2))
    finally:
        dist.destroy_process_group()


@pytest.mark.long
@pytest.mark.parametrize("backbone", [RESNET, VIT], ids=["bn", "vit"])
def test_a_compiled_backbone_does_so_too(backbone):
    backbone = {**backbone, "drop_path_rate": 0.0}  # a compiled network draws otherwise
    plain, again = (trained(on, backbone=backbone, compiled=True) for on in (False, True))
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, rtol=1e-9, atol=1e-11)


def test_memory_is_less():
    def peak(again):
        network = TimmBackbone("test_vit", model_args={"dynamic_img_size": True, "depth": 8})
        parts, options = METHODS["dino"](network.embed_dim)
        model = build_model(Method(network, *parts, **options), None, CPU, again)
        return estimate_memory(model, SimpleNamespace(sizes=(64, 64), channels=3, num_globals=2), SGD(), 16).peak

    assert peak(True) < 0.6 * peak(False)


def test_a_backbone_that_timm_cannot_checkpoint_is_refused_by_name():
    backbone = TimmBackbone("convit_tiny")
    parts, _ = METHODS["dino"](backbone.embed_dim)
    message = (
        r"^runtime\.checkpoint_activations: timm cannot recompute the activations of 'convit_tiny'\. Add\n  --runtime"
    )
    with pytest.raises(NotSupported, match=message):
        build_model(Method(backbone, *parts), None, CPU, checkpoint_activations=True)
    assert not backbone.recomputes


def test_explain_and_train_refuse_it_before_the_run(tmp_path, capsys):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(TINY_RECIPE)
    again = ("--runtime.checkpoint_activations", "true")
    for command, *words in (["explain"], ["train", "--run-dir", str(tmp_path / "run")]):
        assert main([command, str(recipe), *words, *again, "--plugin", TINY]) == 2
        error = capsys.readouterr().err
        assert "runtime.checkpoint_activations: TinyBackbone cannot compute its activations again. Add" in error
        assert "--runtime.checkpoint_activations false" in error
    assert not (tmp_path / "run").exists()
