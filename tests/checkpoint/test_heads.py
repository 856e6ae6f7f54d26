"""Heads of a run come from its newest checkpoint, by the names of a method's parts."""

import pytest
import torch
from safetensors.torch import save_file

from sslkit.checkpoint.heads import below, heads_of_run
from sslkit.errors import SSLKitError

STATE = {
    "model.student.backbone.weight": torch.tensor([0.0]),
    "model.student.head.projector.0.weight": torch.tensor([1.0]),
    "model.student.predictor.layers.0.weight": torch.tensor([2.0]),
    "model.teacher.head.projector.0.weight": torch.tensor([3.0]),
    "model.collapse.center": torch.tensor([4.0]),
    "optimizer.0.exp_avg": torch.tensor([5.0]),
}


def run_of(folder, **steps):
    for step, state in steps.items():
        place = folder / "checkpoints" / step
        place.mkdir(parents=True)
        save_file(state, place / "state.safetensors")
    return folder


@pytest.mark.parametrize(("network", "projector"), [("teacher", 3), ("student", 1)])
def test_a_networks_head_and_the_students_predictor(network, projector, tmp_path):
    older = {name: tensor + 10 for name, tensor in STATE.items()}
    run = run_of(tmp_path, **{"step-000000001": older, "step-000000002": STATE})
    found = heads_of_run(run, network)
    assert found == {"head.projector.0.weight": projector, "predictor.layers.0.weight": 2}
    assert heads_of_run(run, network, ("head", "collapse")) == {
        "head.projector.0.weight": projector,
        "collapse.center": 4,
    }


def test_a_teacher_that_is_the_student_has_its_head(tmp_path):
    shared = {name: tensor for name, tensor in STATE.items() if "teacher" not in name}
    assert heads_of_run(run_of(tmp_path, **{"step-000000001": shared}), "teacher")["head.projector.0.weight"] == 1


def test_a_run_without_a_usable_checkpoint_is_named(tmp_path):
    with pytest.raises(SSLKitError, match=r"is no run with a checkpoint.*\n  --method\.init_from\.heads false"):
        heads_of_run(tmp_path, "teacher")
    run_of(tmp_path, **{"step-000000001": STATE})
    (tmp_path / "checkpoints/step-000000001/state.safetensors").write_bytes(b"nothing")
    with pytest.raises(SSLKitError, match="step-000000001 is damaged"):
        heads_of_run(tmp_path, "teacher")


def test_names_below_a_part():
    assert below("a.b", {"a.b.c": 1, "a.bc": 2, "a.b": 3}) == {"c": 1}
