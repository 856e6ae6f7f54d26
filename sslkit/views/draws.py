"""Random numbers of views as hashes of (seed, epoch, image, view), without a generator.

Every number is a function of (seed, epoch, sample key, view, stream). So a view does not depend on the batch, its order
or the number of workers and processes, and a run can resume at any step without drawing what came before.
"""

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from sslkit.hashing import GOLDEN, mix64

ATTEMPTS = 10
"""Attempts at a crop that fits, before the central fallback; as many as torchvision makes."""


class Stream(IntEnum):
    """The purpose of a random number. The values are part of a run's identity: never renumber them."""

    FLIP = 0
    JITTER = 1
    JITTER_ORDER = 2
    BRIGHTNESS = 3
    CONTRAST = 4
    SATURATION = 5
    HUE = 6
    GRAYSCALE = 7
    BLUR = 8
    BLUR_SIGMA = 9
    SOLARIZE = 10
    CROP_TOP = 11
    CROP_LEFT = 12
    CROP_AREA = 13
    CROP_RATIO = CROP_AREA + ATTEMPTS


NUM_STREAMS = Stream.CROP_RATIO + ATTEMPTS

_WORD = (1 << 64) - 1


def uniforms(seed: int, epoch: int, keys: Sequence[int] | NDArray[np.int64], views: Sequence[int]) -> NDArray:
    """Return (B, V, S) float64 numbers, uniform in [0, 1): one for each key, view and stream.

    The words seed, epoch, key, view and stream are absorbed in this order, each modulo 2**64, from state 0:
    ``state = mix((state xor word) + 0x9E3779B97F4A7C15)`` with the finalizer of SplitMix64 (Steele, Lea, Flood,
    OOPSLA 2014). A number is the state's upper 53 bits times 2**-53.

    Args:
        seed: the run's seed.
        epoch: the pass over the data.
        keys: B sample keys.
        views: V view ids.
    """
    of_image = _absorb(_absorb(_absorb(np.zeros(1, np.uint64), _words([seed])), _words([epoch])), _words(keys))
    of_view = _absorb(of_image[:, None], _words(views))
    state = _absorb(of_view[:, :, None], np.arange(NUM_STREAMS, dtype=np.uint64))
    return (state >> np.uint64(11)) * 2.0**-53


def _words(numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint64]:
    # Both ways take a negative number modulo 2**64; the array's is a view, without a loop over the keys.
    if isinstance(numbers, np.ndarray):
        return numbers.astype(np.int64, copy=False).view(np.uint64)
    return np.array([int(number) & _WORD for number in numbers], np.uint64)


def _absorb(state: NDArray[np.uint64], word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a new state that depends on every bit of both; the shapes broadcast."""
    return mix64((state ^ word) + GOLDEN)


def between(draws: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Scale draws in 0 .. 1 linearly to low .. high."""
    return low + (high - low) * draws
