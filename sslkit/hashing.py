"""A hash of 64-bit words, from which the parameters of views and the order of images are drawn."""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio, odd: the increment of SplitMix64."""


def mix64(words: Words) -> Words:
    """Return the hash of each word, an invertible one (the finaliser of SplitMix64; Steele et al., OOPSLA 2014)."""
    # Products of arrays wrap around silently; those of numpy's scalars would warn of it.
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
