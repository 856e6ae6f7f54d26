"""MoCo v1 and v2: three steps with SGD between them, and a queue that wraps (builder.MoCo)."""

import pytest
import torch
from torch import nn

from sslkit.collapse import NegativeQueue
from sslkit.heads.mlp_head import MLPHead
from sslkit.losses import InfoNCE
from sslkit.method.branch import Branch
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import EMA

TRACE = "d_moco"


def their_name(name):
    name = name.replace("backbone.body.0.", "body.")
    return name.replace("head.projector.", "fc.")


@pytest.mark.parametrize(("case", "num_layers"), [("v1", 1), ("v2", 2)])
def test_three_steps(case, num_layers, trace, agrees, given):
    recorded = trace(TRACE)
    said = recorded.json["cases"][case]
    body = nn.Sequential(nn.Linear(12, 16), nn.Tanh())
    student = Branch(given.Backbone(16, body), MLPHead(16, 16, said["dim"], num_layers))
    names = {name: their_name(name) for name in student.state_dict()}
    if num_layers == 1:
        names = {name: theirs.replace("fc.0.", "fc.") for name, theirs in names.items()}
    given.load_by(student, names, recorded.below(f"{case}/encoder_init/"))
    operator = NegativeQueue(said["dim"], said["K"])
    operator.queue.copy_(recorded[f"{case}/queue_init"].T)
    model = StudentTeacher(
        student,
        teacher_update=EMA(said["m"]),
        collapse=operator,
        loss=InfoNCE(said["T"]),
        student_views=[0],
        teacher_views=[1],
    )
    # In float64 what is left is the rounding of the recorded float32 alone; ours would differ from CPU to CPU.
    model.double()
    optimizer = torch.optim.SGD(student.parameters(), lr=said["sgd_lr"])

    def check(quantity, ours, key, tolerance=1e-6):
        agrees(TRACE, quantity, ours, recorded[f"{case}/{step}/{key}"], tolerance)

    def check_all(quantity, ours, folder):
        for name, tensor in ours.items():
            check(quantity, tensor, f"{folder}/{names[name]}")

    for step, at in enumerate(said["steps"]):
        # The reference averages before the key forward, which is after the step before.
        check_all("key encoder", dict(model.teacher.named_parameters()), "encoder_k_used")
        queries, keys = (recorded[f"{case}/{step}/{name}"].double() for name in ("im_q", "im_k"))
        output = train_step(model, given.views_of(queries, keys), optimizer)
        q, k = output.student.embedding[0], output.targets.values[0]
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ output.targets.negatives.T], 1) / said["T"]
        check("logits", logits, "logits")
        check("loss", output.loss, "loss")
        # The positive stands first in both, so that every label is 0.
        check("labels", torch.zeros(said["batch"]), "labels", 0)
        check("queue", operator.queue.T, "queue_after")
        assert operator.pointer.item() == at["queue_ptr_after"]
        assert output.loss.item() == pytest.approx(at["loss"], rel=1e-6)
        check_all("gradients", given.gradients(student), "grad")
        check_all("query encoder after SGD", dict(student.named_parameters()), "encoder_q_after_sgd")
