"""Recognise the timm model that weights are of, by their names and shapes."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sslkit.backbones.foreign import Weights
from sslkit.errors import SSLKitError

NUM_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads of the published ViTs by width (Ti, S, B, L, H), which the shapes of the weights do not show."""

UNIT = 64
"""Width to which a bottleneck's ``base_width`` refers in timm and torchvision."""


def recognise(weights: Weights) -> dict[str, Any]:
    """Return the arguments of `TimmBackbone` for the network of these weights, a plain ViT or a ResNet.

    Raises:
        SSLKitError: it is another network, or the weights do not tell the number of its attention heads.
    """
    found = _vit(weights) or _resnet(weights.tensors)
    if found is None:
        raise SSLKitError(
            f"{weights.source}: the network is not recognised by its weights, as plain ViTs and ResNets are. Name it: "
            "--backbone NAME, a timm model such as vit_small_patch16_224"
        )
    return found


def _vit(weights: Weights) -> dict[str, Any] | None:
    tensors = weights.tensors
    kernel, positions, hidden = (_shape(tensors, name) for name in _OF_VIT)
    side = math.isqrt(max(positions[1] - 1, 0)) if len(positions) == 3 else 0
    if len(kernel) != 4 or len(hidden) != 2 or not side or side**2 != positions[1] - 1 or "cls_token" not in tensors:
        return None
    width, channels, patch = kernel[:3]
    num_heads = weights.num_heads or NUM_HEADS.get(width)
    if not num_heads or width % num_heads:
        raise SSLKitError(
            f"{weights.source}: a ViT of width {width}, whose weights do not tell its number of attention heads. Name "
            "it: --backbone NAME, a timm model such as vit_small_patch16_224"
        )
    model_args = {
        "img_size": side * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": _count(tensors, "blocks."),
        "num_heads": num_heads,
        "mlp_ratio": hidden[0] / width,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
    }
    positions_rule = {"positions": weights.positions} if weights.positions else {}
    return {"name": "vit_small_patch16_224", "in_chans": channels, "model_args": model_args, **positions_rule}


_OF_VIT = ("patch_embed.proj.weight", "pos_embed", "blocks.0.mlp.fc1.weight")


def _resnet(tensors: Mapping[str, Tensor]) -> dict[str, Any] | None:
    stages = [f"layer{number}." for number in range(1, 5)]
    stem, first = _shape(tensors, "conv1.weight"), [_shape(tensors, f"{stage}0.conv1.weight") for stage in stages]
    if len(stem) != 4 or any(len(shape) != 4 for shape in first):
        return None
    bottleneck = "layer1.0.conv3.weight" in tensors
    last, expansion = ("conv3", 4) if bottleneck else ("conv2", 1)
    channels = [(_shape(tensors, f"{stage}0.{last}.weight") or (0,))[0] // expansion for stage in stages]
    model_args: dict[str, Any] = {"layers": [_count(tensors, stage) for stage in stages], "channels": channels}
    grouped = _shape(tensors, "layer1.0.conv2.weight")
    if bottleneck and channels[0] and len(grouped) == 4 and grouped[1]:
        model_args["cardinality"] = first[0][0] // grouped[1]
        model_args["base_width"] = grouped[1] * UNIT // channels[0]
    name = "resnet50" if bottleneck else "resnet18"
    return {"name": name, "in_chans": stem[1], "small_image_stem": stem[2] == 3, "model_args": model_args}


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    """Return the shape of a weight, empty if there is none of this name."""
    return tuple(tensors[name].shape) if name in tensors else ()


def _count(tensors: Mapping[str, Tensor], begin: str) -> int:
    """Return the number of blocks, whose numbers follow ``begin`` in the names of their weights."""
    return len({name.removeprefix(begin).partition(".")[0] for name in tensors if name.startswith(begin)})
