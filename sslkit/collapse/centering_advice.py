"""Recommendations on the momentum and temperature of `Centering`."""

from collections.abc import Iterator

from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import Schedule, value_at

HIGHEST_FIRST, HIGHEST = 0.06, 0.07
"""The highest teacher temperatures without collapse in DINO appendix D: constant, and after a warm-up from 0.04."""

SLOWEST = 0.999
"""The momentum of the center with which DINO collapsed (appendix D); with 0.99 it did not."""


def recommend_centering(
    momentum: float, temperature: float | Schedule | None, context: RunContext
) -> Iterator[Recommendation]:
    """Yield changes of settings that collapsed in DINO's appendix D or table 15.

    Args:
        momentum: of the center.
        temperature: of the teacher; None for logits without a softmax.
        context: the run.
    """
    if context.shares_weights:
        yield Recommendation(
            "centering does not keep a student that is its own teacher from collapse: k-NN 0.1 %",
            "DINO table 15 row 4",
            leads_to=("not learning", "dimensional collapse", "one-dimension collapse", "uniform collapse"),
            remedy={"method.teacher": "EMA"},
        )
    if momentum >= SLOWEST:
        yield Recommendation(
            f"a center with momentum {momentum:g} follows too slowly: 0.999 collapsed, 0.9 is the default",
            "DINO appendix D",
            {"momentum": 0.9},
            leads_to=("one-dimension collapse",),
        )
    if temperature is not None:
        yield from _recommend_temperature(temperature, context)


def _recommend_temperature(temperature: float | Schedule, context: RunContext) -> Iterator[Recommendation]:
    temperatures = [value_at(temperature, moment) for moment in context.moments()]
    if temperatures[0] <= HIGHEST_FIRST and max(temperatures) <= HIGHEST:
        return
    over, low = context.share(0.1), 0.04
    warmup = {"start": low, "end": HIGHEST, "over": str(over), "every": over.unit.removesuffix("s")}
    yield Recommendation(
        f"the teacher's temperature starts at {temperatures[0]:g} and peaks at {max(temperatures):g}: held from "
        "the start, 0.06 learned and 0.08 collapsed; warmed up from 0.04, 0.07 learned",
        "DINO appendix D",
        # A tenth of a very short run rounds to no step at all: then the start of the published warm-up, constant.
        {"temperature": {"Warmup": warmup} if over.amount else low},
        leads_to=("uniform collapse",),
    )
