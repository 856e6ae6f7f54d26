"""Divide each prototype's probability by how often it has been used."""

import torch
from torch import Tensor

from sslkit.clock import Clock
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import mean_over_processes
from sslkit.schedules import Schedule, value_at
from sslkit.types import Projection, Targets, at_least_float32


class DistributionAlignment(CollapseOperator):
    """Teacher probabilities, divided by their running mean and normalised again.

        p       = softmax(logits / temperature)
        targets = p / (use / K + floor), each row divided by its sum
        use    <- momentum * use + (1 - momentum) * K * (mean over views, images and processes of p)

    ``use`` is K times the running mean of p: 1 where a prototype is used as often as all on average.

    Distribution alignment of ReMixMatch (arXiv:1911.09785, §3.1) towards a uniform marginal, with the running mean
    of SoftMatch's uniform alignment (arXiv:2301.10921). Both align the guessed labels of semi-supervised learning;
    to align the teacher's prototypes is our use of it. A constant answer becomes a uniform target, unless it is so
    sharp that its other probabilities lie below ``floor``: sslkit's quickstart learns at temperature 0.04 and
    collapses at 0.02. `Centering` in contrast subtracts a running mean of logits.

    The published code starts the mean at the first batch's and divides by a mean that holds the current batch.
    Here it starts uniform, which changes nothing in the first step, and a step reads what the steps before it
    left, as every collapse operator does.

    Args:
        num_prototypes: K.
        temperature: of the teacher, above 0; a schedule may move it.
        momentum: in [0, 1); 0.999 is SoftMatch's. The mean covers about 1 / (1 - momentum) steps, so a run of some
            hundred steps needs less.
        floor: above 0, in probability; it bounds how far an unused prototype is raised (1e-6 is SoftMatch's).

    Raises:
        ValueError: a number out of range.
    """

    use: Tensor

    def __init__(
        self,
        num_prototypes: int,
        temperature: float | Schedule = 0.04,
        momentum: float = 0.999,
        floor: float = 1e-6,
    ) -> None:
        super().__init__()
        if isinstance(temperature, float | int) and temperature <= 0:
            raise ValueError(f"the temperature of DistributionAlignment is above 0, not {temperature}")
        if not 0 <= momentum < 1:
            raise ValueError(f"the momentum of DistributionAlignment lies in [0, 1), not {momentum}")
        if floor <= 0:
            raise ValueError(f"the floor of DistributionAlignment is above 0, not {floor}")
        self.temperature = temperature
        self.momentum = momentum
        self.floor = floor
        self.register_buffer("use", torch.ones(num_prototypes))

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Align (T, B, K) logits to (T, B, K) probabilities."""
        # In the logarithm, so that a probability too small for its dtype is not lost before it is raised.
        aligned = self._scores(teacher, clock) - (self.use / len(self.use) + self.floor).log()
        return Targets(aligned.softmax(-1), "probabilities", teacher.view_ids)

    @torch.no_grad()
    def update(self, teacher: Projection, clock: Clock = START) -> None:
        mean = mean_over_processes(self._scores(teacher, clock).softmax(-1).mean((0, 1)))
        # The state takes the wider dtype, so that float64 inputs keep their precision.
        self.use = self.use.to(torch.promote_types(self.use.dtype, mean.dtype))
        self.use.lerp_(len(self.use) * mean.to(self.use.dtype), 1 - self.momentum)

    def metrics(self, clock: Clock) -> dict[str, float | Tensor]:
        """Return the temperature and the entropy of the use in nats: log K is even use, 0 one prototype for all."""
        entropy = torch.special.entr(self.use / len(self.use)).sum()
        return {"teacher_temperature": value_at(self.temperature, clock), "use_entropy": entropy}

    def _scores(self, teacher: Projection, clock: Clock) -> Tensor:
        assert teacher.logits is not None
        return at_least_float32(teacher.logits) / value_at(self.temperature, clock)
