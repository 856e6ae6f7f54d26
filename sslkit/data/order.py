"""Shuffle the images of an epoch with random access, in constant time and memory."""

import numpy as np
import numpy.typing as npt

from sslkit.hashing import GOLDEN, Words, mix64

NUM_ROUNDS = 8
"""Four rounds make a Feistel network pseudo-random; tiny data sets, with halves of a few bits, need more."""

MIN_HALF_BITS = 3
"""With smaller halves some permutations are more frequent than others."""

LARGEST = 2**62
"""Largest number of images."""


def permuted(positions: npt.ArrayLike, n: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Return the indices of the images at these positions of an epoch.

    ``permuted(range(n), n, seed, epoch)`` is a permutation of 0 .. n - 1, a different one for each seed and epoch, of
    which any position is computed without the others. So a run resumes at any position, and each process computes its
    own share. A Feistel network on the next power of four (Luby & Rackoff, SIAM J. Comput. 1988), applied until the
    result is below n (Black & Rogaway, CT-RSA 2002): at most four times on average where n is at least 16.

    Args:
        positions: integers in 0 .. n - 1, of any shape.
        n: number of images, 1 .. 2**62.
        seed: the run's seed.
        epoch: the pass over the data.

    Returns:
        int64, of the shape of ``positions``.

    Raises:
        ValueError: n or a position is out of range.
    """
    where = np.asarray(positions, dtype=np.int64)
    if not 1 <= n <= LARGEST:
        raise ValueError(f"n must be in 1 .. 2**62, not {n}")
    if where.size and not (where.min() >= 0 and where.max() < n):
        raise ValueError(f"positions must be in 0 .. {n - 1}, not {where.min()} .. {where.max()}")
    half_bits = max(MIN_HALF_BITS, ((n - 1).bit_length() + 1) // 2)
    keys = _round_keys(n, seed, epoch)
    images = _feistel(where.ravel().astype(np.uint64), half_bits, keys)
    # Cycle walking: a permutation of a larger set, repeated until the result is below n, is one of 0 .. n - 1.
    while (outside := np.flatnonzero(images >= np.uint64(n))).size:
        images[outside] = _feistel(images[outside], half_bits, keys)
    return images.astype(np.int64).reshape(where.shape)


def _feistel(words: Words, half_bits: int, keys: Words) -> Words:
    """Permute words of 2 * half_bits bits."""
    bits, mask = np.uint64(half_bits), np.uint64(2**half_bits - 1)
    left, right = words >> bits, words & mask
    for key in keys:
        left, right = right, left ^ (mix64(right * GOLDEN + key) & mask)
    return (left << bits) | right


def _round_keys(n: int, seed: int, epoch: int) -> Words:
    state = np.zeros(1, dtype=np.uint64)
    for number in (n, seed, epoch):
        state = mix64(state + np.uint64(number % 2**64) + GOLDEN)
    return mix64(state + np.arange(1, NUM_ROUNDS + 1, dtype=np.uint64) * GOLDEN)
