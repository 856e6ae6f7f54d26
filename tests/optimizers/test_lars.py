from optimized import approx, one_step

from sslkit.optimizers.lars import LARS


def test_lars_by_hand():
    # Update (0.5 + 0.5 * 3, -2 + 0.5 * 4) = (2, 0) of length 2, parameter of length 5: scaled by 0.1 * 5 / 2.
    first, second = one_step(LARS(0.5, 0.1), [[3.0, 4.0]], [[0.5, -2.0]], "weight")
    assert first[0] == approx([3.0 - 2.0 * 0.5, 4.0])
    # Now (0.5 + 1, -2 + 2) = (1.5, 0), length 1.5 against sqrt(20); half of the first 0.5 goes on.
    assert second[0] == approx([2.0 - 2.0 * (0.25 + 0.1 * 20**0.5), 4.0])
    # A bias: the gradient as it is, 2 and then 2 + 1.
    first, second = one_step(LARS(0.5, 0.1), [3.0, 4.0], [1.0, -2.0], "bias")
    assert first == approx([1.0, 8.0])
    assert second == approx([1.0 - 3.0, 8.0 + 6.0])


def test_the_step_of_lars_does_not_depend_on_the_gradients_length():
    short = list(one_step(LARS(), [[3.0, 4.0]], [[1.0, 2.0]], "weight", decay=0.0))
    long = list(one_step(LARS(), [[3.0, 4.0]], [[1e3, 2e3]], "weight", decay=0.0))
    assert short[1][0] == approx(long[1][0])
