"""SplitMix64 against its definition in whole numbers, and how well it mixes."""

import numpy as np

from sslkit.hashing import mix64

MASK = 2**64 - 1


def slow_mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_it_is_the_finaliser_of_splitmix64():
    words = [0, 1, MASK, 2**63, *np.random.default_rng(0).integers(0, MASK, 100, np.uint64).tolist()]
    assert mix64(np.array(words, np.uint64)).tolist() == [slow_mix(word) for word in words]
    # The first output of the published generator with seed 0: its state is the golden ratio then.
    assert mix64(np.array([0x9E3779B97F4A7C15], np.uint64)).tolist() == [0xE220A8397B1DCDAF]


def test_one_bit_changes_half_of_all_bits():
    words = np.random.default_rng(1).integers(0, MASK, 2000, np.uint64)
    mixed = mix64(words)
    for bit in (0, 17, 63):
        changed = mixed ^ mix64(words ^ np.uint64(1 << bit))
        counts = np.unpackbits(changed.view(np.uint8).reshape(-1, 8), axis=1).mean()
        assert abs(counts - 0.5) < 0.01


def test_words_are_not_changed_in_place_and_differ():
    words = np.arange(10_000, dtype=np.uint64)
    mixed = mix64(words)
    assert words.tolist() == list(range(10_000))
    assert len(np.unique(mixed)) == 10_000
