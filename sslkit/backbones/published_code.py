"""Networks that DINO's published code builds: its own ViT, and torchvision's ResNets."""

import re
from typing import Any

from torch import nn

from sslkit.errors import NotSupported

VIT = re.compile(
    r"cls_token|pos_embed|(patch_embed\.proj|norm|blocks\.\d+\.(norm[12]|attn\.(qkv|proj)|mlp\.fc[12]))\.(weight|bias)"
)
RESNET = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
"""Names of the weights of these networks, which are timm's names too."""

ARCHITECTURES = {(192, 12): "vit_tiny", (384, 12): "vit_small", (768, 12): "vit_base"}
"""Names there of the ViTs, by width and depth."""


def published_arguments(model: Any, name: str) -> dict[str, Any]:
    """Return the arguments by which the published code builds a timm model.

    Args:
        model: the model.
        name: its timm name.

    Raises:
        NotSupported: the published code does not build such a network.
    """
    if _is_resnet(model):
        return {"arch": name.partition(".")[0]}
    if not _is_vit(model):
        raise NotSupported(
            f"{name} is no network that DINO's code builds, a plain ViT or a ResNet of torchvision. --to onnx takes "
            "any backbone."
        )
    width, depth = model.embed_dim, len(model.blocks)
    return {
        "arch": ARCHITECTURES.get((width, depth), "vit"),
        "patch_size": int(model.patch_embed.patch_size[0]),
        "embed_dim": width,
        "depth": depth,
        "num_heads": model.blocks[0].attn.num_heads,
    }


def _is_vit(model: Any) -> bool:
    names = model.state_dict()
    if not {"cls_token", "pos_embed"} <= names.keys() or not all(VIT.fullmatch(name) for name in names):
        return False
    rows, columns = model.patch_embed.grid_size
    # The class token has a position there, and is what the network returns.
    return names["pos_embed"].shape[1] == rows * columns + 1 and bool(model.global_pool == "token")


def _is_resnet(model: nn.Module) -> bool:
    names = model.state_dict()
    return all(RESNET.fullmatch(name) for name in names) and names["conv1.weight"].shape[-1] == 7
