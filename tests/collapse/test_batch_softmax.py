"""A softmax over images, then rows that sum to 1."""

import torch

from sslkit.clock import Clock
from sslkit.collapse import BatchSoftmax
from sslkit.schedules import Warmup
from sslkit.types import Projection


def teacher(logits, ids=(0, 1)):
    return Projection(logits, logits, logits, logits, ids)


def test_batch_softmax_is_a_softmax_over_images_then_rows():
    logits = torch.randn(2, 5, 3, dtype=torch.float64)
    operator = BatchSoftmax(Warmup(0.5, 1.0, "3 steps", every="step"))
    for step, temperature in enumerate((0.5, 0.75, 1.0, 1.0)):
        clock = Clock(step, 4, 4)
        over_images = (logits / temperature).softmax(1)
        expected = over_images / over_images.sum(2, keepdim=True)
        torch.testing.assert_close(operator(teacher(logits), clock).values, expected, rtol=1e-12, atol=0)
        assert operator.metrics(clock) == {"teacher_temperature": temperature}
