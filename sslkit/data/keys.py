"""Keys of images and fingerprints of indices, independent of where the images are stored."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sslkit.hashing import GOLDEN, mix64


def name_keys(names: Iterable[bytes]) -> Tensor:
    """Return (N,) int64, one key a name; equal names have equal keys on every machine."""
    digests = b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names)
    return torch.from_numpy(np.frombuffer(digests, dtype="<i8").astype(np.int64))


def row_keys(table: str, num_rows: int) -> Tensor:
    """Return (N,) int64, one key a row of a table; tables of different names share no keys but by chance."""
    start = name_keys([table.encode()]).numpy().view(np.uint64)
    rows = np.arange(1, num_rows + 1, dtype=np.uint64)
    return torch.from_numpy(mix64(start + rows * GOLDEN).view(np.int64))


def fingerprint(parts: Iterable[bytes | str | Tensor | None]) -> str:
    """Return 32 hexadecimal digits that stand for these parts in this order."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            part = part.contiguous().numpy().tobytes()
        content = part.encode() if isinstance(part, str) else part
        # The length keeps ("ab", "c") apart from ("a", "bc"), and None apart from nothing.
        digest.update(b"none" if content is None else len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()
