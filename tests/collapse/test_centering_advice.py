"""A teacher temperature is warmed up as published."""

from advice import reasons, run, the_recommendation

from sslkit import (
    Centering,
    Warmup,
)


def test_a_temperature_is_warmed_up_as_published_where_the_run_has_room():
    warm = the_recommendation(Centering(8, temperature=0.08), run()).changes["temperature"]
    assert warm == {"Warmup": {"start": 0.04, "end": 0.07, "over": "30 epochs", "every": "epoch"}}
    assert reasons(Centering(8, temperature=Warmup(**warm["Warmup"])), run()) == []
    short = run(batch=64, epochs=2, images=640)
    steps = the_recommendation(Centering(8, temperature=0.08), short).changes["temperature"]
    assert steps == {"Warmup": {"start": 0.04, "end": 0.07, "over": "2 steps", "every": "step"}}
    assert reasons(Centering(8, temperature=Warmup(**steps["Warmup"])), short) == []
    assert the_recommendation(Centering(8, temperature=0.08), run(64, 1, 64)).changes == {"temperature": 0.04}
