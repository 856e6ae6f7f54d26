"""BYOL's loss, and one whole step with SGD and the average of the target (byol_pytorch)."""

import torch
from torch import nn

from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor
from sslkit.losses import MSE
from sslkit.method.branch import Branch
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import EMA
from sslkit.types import Projection, Targets, Views

TRACE = "e_byol"
# Batch norm takes away what these add: rounding noise in both.
WITHOUT_EFFECT = tuple(f"online_{name}.bias" for name in ("encoder.projector.0", "encoder.projector.3", "predictor.0"))


class PredictorWithBias(MLPPredictor):
    """The predictor of this implementation, whose last layer has a bias; the published BYOL's has none."""

    def __init__(self, dim, hidden_dim):
        super().__init__(dim, hidden_dim)
        self.layers[-1] = nn.Linear(hidden_dim, dim)


def test_the_loss_is_the_sum_of_both_directions(trace, agrees):
    recorded = trace(TRACE)
    predictions = [recorded[f"loss/{name}"].requires_grad_() for name in ("p1", "p2")]
    targets = Targets(torch.stack([recorded[f"loss/{name}"] for name in ("z1", "z2")]), "embedding", (0, 1))
    loss = MSE("sum")(Projection.of(embedding=torch.stack(predictions)), targets)
    loss.backward()
    agrees(TRACE, "loss alone", loss, recorded["loss/loss"], 1e-6)
    for name, prediction in zip(("p1", "p2"), predictions, strict=True):
        agrees(TRACE, "gradient of the predictions", prediction.grad, recorded[f"loss/grad_{name}"], 2e-6)


def their_name(name, network):
    """Return the reference's name of one of ours: its backbone is known by two names, of which one is taken."""
    name = name.replace("backbone.body.0.", f"{network}_encoder.net.f.1.")
    name = name.replace("head.projector.", f"{network}_encoder.projector.")
    return name.replace("predictor.layers.", "online_predictor.")


def test_a_whole_step(trace, agrees, given):
    recorded = trace(TRACE)
    images = [recorded["step/view1"], recorded["step/view2"]]
    before, after = recorded.below("step/sd_before/"), recorded.below("step/sd_after/")
    student = Branch(
        given.Backbone(10, nn.Sequential(nn.Linear(48, 10), nn.Tanh())),
        MLPHead(10, 16, 6, batch_norm=True),
        PredictorWithBias(6, 16),
    )
    online = {name: their_name(name, "online") for name in student.state_dict()}
    given.load_by(student, online, before)
    model = StudentTeacher(
        student,
        teacher_update=EMA(recorded.json["moving_average_decay"]),
        collapse=None,
        loss=MSE("sum"),
        student_views="globals",
    )
    target = {name: their_name(name, "target") for name in model.teacher.state_dict()}
    given.load_by(model.teacher, target, before)
    optimizer = torch.optim.SGD(student.parameters(), lr=recorded.json["sgd_lr"])

    output = train_step(model, Views.of(images), optimizer)

    agrees(TRACE, "loss of the step", output.loss, recorded["step/loss"], 1e-6)
    # The backbone's gradient is recorded under the name of its first owner.
    theirs = {
        name.replace("net.f.1.", "online_encoder.net.f.1."): g for name, g in recorded.below("step/grad/").items()
    }
    found = {online[name]: grad for name, grad in given.gradients(student).items()}
    assert found.keys() == theirs.keys()
    for name, grad in theirs.items():
        if name in WITHOUT_EFFECT:
            assert max(grad.abs().max(), found[name].abs().max()) < 1e-6
        else:
            agrees(TRACE, "gradients of the step", found[name], grad, 2e-6)
    for quantity, network, names in (
        ("online network after the step", model.student, online),
        ("target network after the step", model.teacher, target),
    ):
        for name, tensor in network.state_dict().items():
            agrees(TRACE, quantity, tensor, after[names[name]], 1e-6)
    # The reference's plain `net` is the online encoder's backbone by another name.
    for name in ("weight", "bias"):
        agrees(
            TRACE, "online network after the step", after[f"net.f.1.{name}"], after[f"online_encoder.net.f.1.{name}"], 0
        )
