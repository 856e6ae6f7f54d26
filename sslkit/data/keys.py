"""Keys of images and fingerprints of indices, independent of where the images are stored."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sslkit.hashing import GOLDEN, mix64


def name_keys(names: Iterable[bytes]) -> Tensor:
    """Return (N,) int64, a 64-bit hash of each name; equal names have equal keys on every machine."""
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return torch.from_numpy(np.frombuffer(digests, dtype="<i8").astype(np.int64))  # little-endian everywhere


def row_keys(table: str, num_rows: int) -> Tensor:
    """Return (N,) int64, one key for each row of a table; tables of different names share keys by chance only."""
    start = name_keys([table.encode()]).numpy().view(np.uint64)
    rows = np.arange(1, num_rows + 1, dtype=np.uint64)
    return torch.from_numpy(mix64(start + rows * GOLDEN).view(np.int64))


def fingerprint(values: Iterable[bytes | str | Tensor | None]) -> str:
    """Return a 128-bit hash, as 32 hexadecimal digits, of these values in this order."""
    digest = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, Tensor):
            value = value.contiguous().numpy().tobytes()
        content = value.encode() if isinstance(value, str) else value
        # The length keeps ("ab", "c") apart from ("a", "bc"), and None apart from nothing.
        digest.update(b"none" if content is None else len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
