"""Centering and sharpening of teacher logits, as in DINO."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sslkit.clock import Clock
from sslkit.collapse.centering_advice import recommend_centering
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import mean_over_processes
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import Schedule, check_range, value_at
from sslkit.types import Projection, TargetKind, Targets, at_least_float32, in_wider_dtype


class Centering(CollapseOperator):
    """softmax((logits - center) / temperature), the center a running mean of raw teacher logits.

    DINO §3.1 equation 4 (arXiv:2104.14294). The center starts at 0 and is updated after the targets of a step are
    computed, so a step uses the center of the steps before it:

        center <- momentum * center + (1 - momentum) * mean over views, images and processes of logits

    Args:
        num_prototypes: K.
        momentum: in [0, 1]; 0 centers with the mean of the previous batch, 1 leaves the center at 0.
        temperature: a number, or a schedule that warms it up. Above 0 the targets are probabilities; at 0 they are
            one-hot at the largest centered logit; with None they are the centered logits without a softmax, for a
            regression loss (tables 7 and 14).

    Raises:
        ValueError: ``momentum`` is outside [0, 1] or ``temperature`` is negative.
    """

    center: Tensor

    def __init__(self, num_prototypes: int, momentum: float = 0.9, temperature: float | Schedule | None = 0.04) -> None:
        super().__init__()
        check_range("Centering", "num_prototypes", num_prototypes, "[1, inf)")
        check_range("Centering", "momentum", momentum, "[0, 1]")
        check_range("Centering", "temperature", temperature, "[0, inf)")
        self.num_prototypes = num_prototypes
        self.momentum = momentum
        self.temperature = temperature
        # A buffer, so that checkpoints hold it: a run resumed with a center of 0 would get other targets.
        self.register_buffer("center", torch.zeros(num_prototypes))

    @property
    def yields(self) -> TargetKind:
        return "logits" if self.temperature is None else "probabilities"

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return targets (T, B, K) of logits (T, B, K), float32 or wider, of the kind that ``yields`` names."""
        assert teacher.logits is not None
        # Division by a temperature of 0.04 multiplies the rounding error of bf16 by 25 before the exponential.
        centered = at_least_float32(teacher.logits) - self.center
        return Targets(self._sharpen(centered, clock), self.yields, teacher.view_ids)

    def _sharpen(self, centered: Tensor, clock: Clock) -> Tensor:
        if self.temperature is None:
            return centered
        temperature = value_at(self.temperature, clock)
        if temperature == 0:
            # The limit of the softmax, which a division by 0 would turn into NaN.
            return torch.nn.functional.one_hot(centered.argmax(-1), centered.shape[-1]).to(centered.dtype)
        return (centered / temperature).softmax(-1)

    @torch.no_grad()
    def update(self, teacher: Projection, clock: Clock = START) -> None:
        assert teacher.logits is not None
        # The raw logits, as in the published code: with centered ones the center would settle at half their mean.
        # Every process has equally many images, so the mean of the processes' means is the mean over all images.
        mean = mean_over_processes(at_least_float32(teacher.logits).mean((0, 1)))
        self.center, mean = in_wider_dtype(self.center, mean)
        self.center.lerp_(mean, 1 - self.momentum)

    def metrics(self, clock: Clock) -> dict[str, float | Tensor]:
        numbers: dict[str, float | Tensor] = {"center_norm": self.center.norm()}
        if self.temperature is not None:
            numbers["teacher_temperature"] = value_at(self.temperature, clock)
        return numbers

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        return recommend_centering(self.momentum, self.temperature, context)
