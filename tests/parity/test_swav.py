"""SwAV's Sinkhorn-Knopp, and its training loop iteration by iteration (main_swav.distributed_sinkhorn, train)."""

import pytest
import torch
from torch import nn

from sslkit.clock import Clock
from sslkit.collapse import SinkhornKnopp
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.heads.swav_head import SwAVHead
from sslkit.losses import CrossEntropy
from sslkit.method.branch import Branch
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import Copy

TRACE = "c_swav"


@pytest.mark.parametrize("iterations", [1, 2, 3, 10])
@pytest.mark.parametrize("shape", ["square", "wide", "tall", "sharp"])
def test_sinkhorn(shape, iterations, trace, agrees):
    recorded = trace(TRACE)
    scores = recorded[f"sinkhorn/{shape}/scores"][None]
    ours = balance(scores, recorded.json["cases"]["sinkhorn"]["epsilon"], iterations)[0]
    agrees(TRACE, "Sinkhorn's assignments", ours, recorded[f"sinkhorn/{shape}/q_iter{iterations}"], 1e-6)


@pytest.mark.parametrize("case", ["noqueue", "queue"])
def test_the_training_loop(case, trace, agrees, given):
    """The recorded embeddings go through the step: prototypes re-normalised, codes, loss, gradients, the queue."""
    recorded = trace(TRACE)
    said = recorded.json["cases"][case]
    dim, room = said["dim"], said["queue_length"]
    head = SwAVHead(dim, said["K"], embed_dim=dim)
    head.projector = nn.Identity()
    operator = SinkhornKnopp(said["epsilon"], said["iterations"], room, dim if room else None, queue_start="0 steps")
    model = StudentTeacher(
        Branch(given.Backbone(dim), head),
        teacher_update=Copy(),
        collapse=operator,
        loss=CrossEntropy(said["temperature"]),
    )
    optimizer = torch.optim.SGD(model.student.parameters(), lr=said["prototype_sgd_lr"])
    with torch.no_grad():
        head.prototypes.weight.copy_(recorded[f"{case}/0/prototypes_before"])

    def check(quantity, ours, key, tolerance=1e-6):
        agrees(TRACE, quantity, ours, recorded[f"{case}/{step}/{key}"], tolerance)

    for step, at in enumerate(said["steps"]):
        check("prototypes before the step", head.prototypes.weight, "prototypes_before")
        rows = recorded[f"{case}/{step}/emb_unnormalised"].requires_grad_()
        if room:
            check("queue before the step", operator.queue.rows, "queue_before", 0)
            assert operator.queue.is_full(said["batch"]) == at["queue_used"]
        output = train_step(model, given.views_of(*rows.split(said["batch"])), optimizer, Clock(step, 9, 9))
        assert output.loss.item() == pytest.approx(at["loss"], rel=1e-6)
        check("gradient of the embeddings", rows.grad, "grad_emb_unnormalised")
        check("gradient of the prototypes", head.prototypes.weight.grad, "grad_prototypes")
        check("prototypes after the step", head.prototypes.weight, "prototypes_after")
        if room:
            # Rows of length 1 by two formulas differ in their last digit.
            check("queue after the step", operator.queue.rows, "queue_after", 1e-7)
            operator.queue.rows.copy_(recorded[f"{case}/{step}/queue_after"])
