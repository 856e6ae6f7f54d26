"""LARC rescales a learning rate by norms."""

from optimized import approx, one_step

from sslkit.optimizers.larc import LARC


def test_larc_by_hand():
    # Lengths 5 and 2: rate 0.1 * 5 / (2 + 0.5 * 5 + 0) = 1 / 9 on (2 + 1.5, 0 + 2).
    first, _ = one_step(LARC(0.5, 0.1, eps=0.0), [[3.0, 4.0]], [[2.0, 0.0]], "weight")
    assert first[0] == approx([3.0 - 2.0 * 3.5 / 9, 4.0 - 2.0 * 2.0 / 9])
    # The same for a bias, and eps counts.
    first, _ = one_step(LARC(0.5, 0.1, eps=0.5), [3.0, 4.0], [2.0, 0.0], "bias")
    assert first == approx([3.0 - 2.0 * 3.5 / 10, 4.0 - 2.0 * 2.0 / 10])
    # Without a length there is no rate: the plain gradient, and a gradient of 0 moves nothing.
    assert next(one_step(LARC(), [[0.0, 0.0]], [[2.0, 1.0]], "weight"))[0] == approx([-4.0, -2.0])
    assert [p[0] for p in one_step(LARC(), [[3.0, 4.0]], [[0.0, 0.0]], "weight")] == [[3.0, 4.0]] * 2
