"""Which rules have a network of their own."""

from sslkit.teachers import EMA, Copy, PreviousEpoch, PreviousStep


def test_copy_shares_weights_and_the_others_do_not():
    assert Copy.shares_weights
    assert not any(rule.shares_weights for rule in (EMA, PreviousEpoch, PreviousStep))
