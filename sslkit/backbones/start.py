"""Read initial weights by the name of a model, a run or a file."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from sslkit.backbones.foreign import Weights, read_checkpoint
from sslkit.backbones.loading import load_model
from sslkit.backbones.matching import Match, match, take
from sslkit.errors import SSLKitError
from sslkit.paths import local_path

__all__ = ["FORMS", "Match", "fingerprint", "match", "read_weights", "take"]

FORMS = (
    "timm:NAME (pretrained), hf-hub:OWNER/NAME, a run folder, an exported folder, or a .safetensors or .pth file "
    "(DINO, MoCo, SwAV, timm, torchvision)"
)


def read_weights(place: str, network: str | None = None, heads: bool = False) -> Weights:
    """Read weights by the name of a model, a run or a file.

    Args:
        place: one of ``FORMS``.
        network: teacher or student of a run or a checkpoint; None is the one that the method evaluates.
        heads: whether the head and the center in a file are read too.

    Raises:
        SSLKitError: there are no such weights, or they cannot be read.
    """
    path, scheme = local_path(place), place.partition(":")[0]
    if path.is_file():
        return read_checkpoint(path, network, heads)
    if scheme not in ("timm", "hf-hub") and not path.is_dir():
        raise SSLKitError(f"there are no weights {place}: give {FORMS}")
    is_run = (path / "recipe.yaml").is_file()
    if network is not None and not is_run:
        raise SSLKitError(f"{place} is one network: leave out {network!r}, which chooses one of a run or a checkpoint")
    model = load_model(place, network)
    source = f"the {model.network} of {place}" if is_run else place
    # Weights of timm and the Hub may come from training by another rule than the one in timm.
    positions = getattr(model.backbone, "positions", None) if path.is_dir() else None
    return Weights(source, model.backbone.named_weights(), preprocessing=model.preprocessing, positions=positions)


def fingerprint(tensors: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """Return a hash, 16 hexadecimal digits, of the names, dtypes, shapes and bytes of tensors on any device."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
