"""DINO's schedules at every step (utils.cosine_scheduler, and the teacher temperature of main_dino.DINOLoss)."""

import pytest
import torch

from sslkit.clock import Clock
from sslkit.schedules import Cosine, Warmup

TRACE = "f_schedules"


@pytest.mark.parametrize("case", ["momentum", "wd", "lr", "lr_start", "one_iter"])
def test_cosine(case, trace, agrees):
    recorded = trace(TRACE)
    said = recorded.json["cases"][case]
    warmup, first = f"{said.get('warmup_epochs', 0)} epochs", said.get("start_warmup_value", 0.0)
    schedule = Cosine(said["base_value"], said["final_value"], warmup, first)
    steps = said["epochs"] * said["niter_per_ep"]
    ours = [schedule(Clock(step, steps, said["niter_per_ep"])) for step in range(steps)]
    agrees(TRACE, f"cosine: {case}", torch.tensor(ours, dtype=torch.float64), recorded[case], 1e-15)


def test_teacher_temperature(trace, agrees):
    recorded = trace(TRACE)
    said = recorded.json["cases"]["teacher_temp"]
    schedule = Warmup(said["warmup_teacher_temp"], said["teacher_temp"], f"{said['warmup_epochs']} epochs")
    ours = [schedule(Clock(7 * epoch + epoch % 7, 7 * said["epochs"], 7)) for epoch in range(said["epochs"])]
    agrees(TRACE, "teacher temperature", torch.tensor(ours, dtype=torch.float64), recorded["teacher_temp"], 1e-15)


@pytest.mark.parametrize("case", ["lr", "lr_start"])
def test_the_quirks_of_the_reference_are_ours(case, trace):
    """The peak is reached twice, by the warm-up and by the cosine, and the last value is not the final one."""
    recorded = trace(TRACE)
    said, values = recorded.json["cases"][case], recorded[case]
    assert (values == said["base_value"]).sum() == 2
    assert values[-1] > said["final_value"]
