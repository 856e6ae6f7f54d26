import numpy as np
import pytest

from sslkit.views.draws import NUM_STREAMS, Stream, _absorb, uniforms

MASK = (1 << 64) - 1


def slow_uniform(*words):
    state = 0
    for word in words:
        z = (((state ^ (word & MASK)) & MASK) + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        state = z ^ (z >> 31)
    return (state >> 11) / 2**53


def test_first_number_is_that_of_splitmix64():
    # The published first output of SplitMix64 seeded with 0.
    assert int(_absorb(np.zeros(1, np.uint64), np.zeros(1, np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_equals_integers_of_unlimited_size():
    keys = np.array([0, -1, 2**63 - 1, -(2**63), 12345], np.int64)
    drawn = uniforms(2**63 + 5, 300, keys, [0, 11])
    assert drawn.shape == (5, 2, NUM_STREAMS)
    for b, key in enumerate(keys.tolist()):
        for v, view in enumerate([0, 11]):
            for stream in (0, 7, NUM_STREAMS - 1):
                assert drawn[b, v, stream] == slow_uniform(2**63 + 5, 300, key, view, stream)


def test_values_never_change():
    drawn = uniforms(0, 0, [0], [0])[0, 0]
    assert drawn[Stream.FLIP] == slow_uniform(0, 0, 0, 0, 0) == pytest.approx(0.4714104297, abs=1e-10)
    assert drawn[Stream.SOLARIZE] == pytest.approx(0.3544876782, abs=1e-10)


def test_an_image_draws_the_same_alone_in_a_batch_and_among_other_views():
    keys = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 50)
    whole = uniforms(3, 9, keys, range(12))
    assert np.array_equal(uniforms(3, 9, keys[[40, 7]], [5, 2]), whole[[40, 7]][:, [5, 2]])
    assert np.array_equal(uniforms(3, 9, [int(keys[7])], range(12)), whole[[7]])


@pytest.mark.parametrize("stream", [Stream.FLIP, Stream.HUE, Stream.CROP_RATIO])
def test_uniform_over_consecutive_keys(stream):
    drawn = uniforms(0, 1, np.arange(50_000), [3])[:, 0, stream]
    counts = np.histogram(drawn, 100, (0, 1))[0]
    chi_square = ((counts - 500) ** 2 / 500).sum()
    assert 50 < chi_square < 160  # 99 degrees of freedom: 1e-4 of the mass lies beyond either end
    assert drawn.min() >= 0
    assert drawn.max() < 1


def test_neighbours_are_uncorrelated():
    base = uniforms(0, 0, np.arange(20_000), [0, 1])
    streams = np.corrcoef(base[:, 0].T)
    assert np.abs(streams - np.eye(NUM_STREAMS)).max() < 0.04
    others = [
        base[:, 1],
        uniforms(0, 1, np.arange(20_000), [0])[:, 0],
        uniforms(1, 0, np.arange(20_000), [0])[:, 0],
    ]
    others.append(uniforms(0, 0, np.arange(1, 20_001), [0])[:, 0])
    for other in others:
        assert abs(np.corrcoef(base[:, 0, Stream.HUE], other[:, Stream.HUE])[0, 1]) < 0.03


def test_words_are_not_interchangeable():
    drawn = {float(uniforms(s, e, [k], [v])[0, 0, 0]) for s, e, k, v in [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0)]}
    drawn |= {float(uniforms(0, 0, [0], [1])[0, 0, 0]), float(uniforms(0, 0, [0], [0])[0, 0, 1])}
    assert len(drawn) == 5


def test_streams_do_not_overlap():
    assert len({int(stream) for stream in Stream}) == len(Stream)
    assert Stream.CROP_AREA + 10 <= Stream.CROP_RATIO
    assert max(stream for stream in Stream if stream < Stream.CROP_AREA) < Stream.CROP_AREA
