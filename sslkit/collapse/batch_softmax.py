"""Softmax of teacher logits over the images of a batch."""

from collections.abc import Iterator

from sslkit.clock import Clock
from sslkit.collapse.partition_advice import balanced_together, is_too_few, too_few, too_flat
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.contracts import START, CollapseOperator
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import Schedule, check_range, value_at
from sslkit.types import Projection, Targets


class BatchSoftmax(CollapseOperator):
    """Softmax over the images of a batch for each prototype, then each image's row divided by its sum.

    One round of Sinkhorn-Knopp, without a further softmax over prototypes. DINO table 15 rows 2 and 5
    (arXiv:2104.14294).

    Args:
        temperature: a number above 0, or a schedule of such numbers.

    Raises:
        ValueError: ``temperature`` is not above 0.
    """

    def __init__(self, temperature: float | Schedule = 0.05) -> None:
        super().__init__()
        check_range("BatchSoftmax", "temperature", temperature, "(0, inf)")
        self.temperature = temperature

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return probabilities (T, B, K) of logits (T, B, K), normalised over the images of all processes."""
        assert teacher.logits is not None
        temperature = value_at(self.temperature, clock)
        # A single round is this operator exactly, and stays finite where exp(logits / temperature) would overflow.
        return Targets(balance(teacher.logits, temperature, num_iters=1), "probabilities", teacher.view_ids)

    def metrics(self, clock: Clock) -> dict[str, float]:
        return {"teacher_temperature": value_at(self.temperature, clock)}

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        return balanced_together(context.batch_size, context)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        if is_too_few(context.batch_size, context):
            yield too_few(context.batch_size, context, {})
        # The sharpest of a schedule decides whether they ever say more.
        yield from too_flat("temperature", min(value_at(self.temperature, moment) for moment in context.moments()))
