"""DINO's loss, centering and temperature over three consecutive steps (main_dino.DINOLoss)."""

import pytest

from sslkit.clock import Clock
from sslkit.collapse import Centering
from sslkit.losses import CrossEntropy
from sslkit.schedules import Warmup
from sslkit.types import Projection

TOLERANCE = {"f64": 1e-12}


@pytest.mark.parametrize("case", ["f32", "f64", "f32_8crops", "f32_big_logits"])
def test_three_steps(case, trace, agrees):
    recorded = trace("a_dino_loss")
    said = recorded.json["cases"][case]
    length = f"{said['warmup_teacher_temp_epochs']} epochs"
    temperature = Warmup(said["warmup_teacher_temp"], said["teacher_temp"], length)
    operator = Centering(said["K"], said["center_momentum"], temperature)
    loss_of = CrossEntropy(said["student_temp"])

    def check(quantity, ours, key):
        agrees("a_dino_loss", quantity, ours, recorded[f"{case}/{step}/{key}"], TOLERANCE.get(case, 1e-6))

    for step, at in enumerate(said["steps"]):
        clock = Clock(at["epoch"], said["n_epochs"], 1)
        assert temperature(clock) == pytest.approx(at["teacher_temp"], rel=1e-15)
        check("center before the step", operator.center[None], "center_before")
        shape = (-1, said["batch"], said["K"])
        student = recorded[f"{case}/{step}/student_out"].requires_grad_()
        teacher = Projection.of(logits=recorded[f"{case}/{step}/teacher_out"].view(shape))
        loss = loss_of(Projection.of(logits=student.view(shape)), operator(teacher, clock))
        loss.backward()
        operator.update(teacher, clock)
        check("loss", loss, "loss")
        check("gradient of the student's logits", student.grad, "grad_student")
        check("center after the step", operator.center[None], "center_after")
        assert loss.item() == pytest.approx(at["loss"], rel=TOLERANCE.get(case, 1e-6))
