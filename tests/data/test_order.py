import numpy as np
import pytest

from sslkit.data.order import permuted

SIZES = [1, 2, 3, 7, 64, 65, 1000] + [2**k + d for k in (2, 5, 10, 13) for d in (-1, 0, 1)]


@pytest.mark.parametrize("n", SIZES)
def test_every_image_stands_at_exactly_one_position(n):
    assert np.array_equal(np.sort(permuted(np.arange(n), n, seed=1, epoch=2)), np.arange(n))


def test_seed_and_epoch_and_size_change_the_order():
    orders = [permuted(np.arange(500), 500, seed, epoch) for seed in (0, 1, -1, 2**63) for epoch in (0, 1, 2)]
    orders.append(permuted(np.arange(500), 501, 0, 0))
    assert len({order.tobytes() for order in orders}) == len(orders)


def test_the_order_is_the_same_everywhere():
    assert permuted(np.arange(8), 8, seed=0, epoch=0).tolist() == [5, 6, 3, 7, 2, 1, 0, 4]
    assert permuted([0, 10**11, 10**12 - 1], 10**12, seed=3, epoch=7).tolist() == [
        48730340273,
        482377632586,
        976693991333,
    ]


def test_a_run_resumes_at_any_position():
    whole = permuted(np.arange(1000), 1000, seed=5, epoch=3)
    assert np.array_equal(permuted(np.arange(617, 1000), 1000, 5, 3), whole[617:])
    assert permuted(617, 1000, 5, 3) == whole[617]
    assert np.array_equal(permuted(np.arange(1000).reshape(10, 100), 1000, 5, 3), whole.reshape(10, 100))


def test_huge_data_sets_need_no_array():
    n = 10**12
    positions = np.concatenate([np.arange(5000), np.arange(n - 5000, n)])
    images = permuted(positions, n, seed=0, epoch=0)
    assert len(np.unique(images)) == len(positions)
    assert images.min() >= 0
    assert images.max() < n
    # Uniform on 0 .. n: ten bins of a thousand each, chi-square with 9 degrees of freedom, p = 1e-4.
    counts = np.bincount(images // (n // 10), minlength=10)
    assert ((counts - 1000) ** 2 / 1000).sum() < 33.7


@pytest.mark.parametrize("n", [3, 10, 100])
def test_an_image_may_come_anywhere(n):
    firsts = np.bincount([int(permuted(0, n, seed, epoch=4)) for seed in range(20 * n)], minlength=n)
    # Chi-square: mean n - 1, variance 2 (n - 1); four standard deviations.
    assert ((firsts - 20) ** 2 / 20).sum() < n - 1 + 4 * (2 * (n - 1)) ** 0.5


def test_all_permutations_of_four_are_as_frequent():
    counts = np.unique([permuted(np.arange(4), 4, seed, 0) for seed in range(960)], axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert ((counts - 40) ** 2 / 40).sum() < 55  # 23 degrees of freedom, p = 2e-4


def test_neighbours_are_torn_apart():
    steps = np.diff(permuted(np.arange(20_000), 20_000, seed=0, epoch=1))
    assert abs(np.abs(steps).mean() / 20_000 - 1 / 3) < 0.01
    assert (steps == 1).sum() < 10


@pytest.mark.parametrize(("positions", "n"), [([0], 0), ([3], 3), ([-1], 3), ([0], 2**62 + 1)])
def test_positions_outside_are_refused(positions, n):
    with pytest.raises(ValueError, match="must be in"):
        permuted(positions, n, 0, 0)
