"""Export as a checkpoint of DINO's own code (facebookresearch/dino), which its evaluation scripts read."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.backbones.foreign import PROJECTOR, PROTOTYPES
from sslkit.backbones.loading import load_model
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.checkpoint.heads import CENTER, heads_of_run
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, SSLKitError
from sslkit.exporting.provenance import read as read_file
from sslkit.exporting.source import Source

FILE = "checkpoint.pth"

VIT = re.compile(
    r"cls_token|pos_embed|(patch_embed\.proj|norm|blocks\.\d+\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12]))\.(weight|bias)"
)
RESNET = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
"""Names of the weights of the networks that DINO's code builds: its own ViT, and torchvision's ResNets."""

ARCHITECTURES = {(192, 12): "vit_tiny", (384, 12): "vit_small", (768, 12): "vit_base"}
"""Names in DINO's code of its ViTs, by width and depth."""


def write(source: Source, folder: Path) -> None:
    """Write checkpoint.pth: teacher, student, epoch, arguments and, where the run has them, heads and center.

    A backbone without a run is written as the teacher alone. There is no optimizer. The arguments are a plain mapping,
    where DINO's code has a Namespace that torch.load refuses by default.

    Raises:
        NotSupported: DINO's code cannot build this backbone.
        SSLKitError: the student was asked for, or a file of the run cannot be read.
    """
    run = source.folder if (source.folder / "recipe.yaml").is_file() else None
    if run and source.network == "student":
        raise SSLKitError(
            "--to dino writes teacher and student into one file: export the teacher, and take the student there with "
            "--checkpoint_key student"
        )
    networks = {"teacher": source.backbone, **({"student": load_model(str(run), "student").backbone} if run else {})}
    heads = {name: _head(run, name) for name in networks}
    checkpoint: dict[str, Any] = {
        name: _state(_portable(backbone, source.preprocessing.size), heads[name], name)
        for name, backbone in networks.items()
    }
    center = _parts(run, "teacher", "collapse").get(CENTER)
    checkpoint |= {"epoch": _epochs(run), "args": _arguments(source.backbone, heads["teacher"])}
    if center is not None:
        checkpoint["dino_loss"] = {"center": center[None]}
    torch.save(checkpoint, folder / FILE)


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """Return the teacher in checkpoint.pth, as a function from images (N, C, H, W) to features (N, F)."""
    backbone = load_model(str(folder / FILE)).backbone
    return lambda images: backbone(images).cls


def _portable(backbone: Backbone, size: int) -> TimmBackbone:
    """Return a backbone with weights by the names of DINO's code, its positions stored for a size if it must be.

    Raises:
        NotSupported: DINO's code cannot build it.
    """
    if not isinstance(backbone, TimmBackbone) or not (_is_vit(backbone) or _is_resnet(backbone)):
        raise NotSupported(
            f"{getattr(backbone, 'name', type(backbone).__name__)} is no network that DINO's code builds, a plain ViT "
            "or a ResNet of torchvision. --to onnx takes any backbone."
        )
    # DINO's code resamples by its own rule: only a run with that rule keeps the size that it has stored.
    grid = backbone.grid_of(size)
    if backbone.positions == "dino" or grid is None or grid == backbone.model.patch_embed.grid_size:
        return backbone
    return backbone.stored_for(size)


def _is_vit(backbone: TimmBackbone) -> bool:
    names, model = backbone.named_weights(), backbone.model
    if not {"cls_token", "pos_embed"} <= names.keys() or not all(VIT.fullmatch(name) for name in names):
        return False
    rows, columns = model.patch_embed.grid_size
    # The class token has a position there, and is what the network returns.
    return names["pos_embed"].shape[1] == rows * columns + 1 and bool(model.global_pool == "token")


def _is_resnet(backbone: TimmBackbone) -> bool:
    names = backbone.named_weights()
    return all(RESNET.fullmatch(name) for name in names) and names["conv1.weight"].shape[-1] == 7


def _state(backbone: TimmBackbone, head: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Return the state of a network by the names of DINO's code, where the student is wrapped for several processes."""
    weights = {f"backbone.{name}": tensor for name, tensor in backbone.named_weights().items()}
    named = {name: tensor.detach().contiguous() for name, tensor in {**weights, **head}.items()}
    # So is a teacher with batch norms, for the sake of their statistics.
    wrapped = network == "student" or any(name.endswith("running_mean") for name in named)
    return {f"module.{name}": tensor for name, tensor in named.items()} if wrapped else named


def _head(run: Path | None, network: str) -> dict[str, Tensor]:
    """Return the state of a run's head by the names of DINO's code; empty if it is no head of DINO with prototypes."""
    state = _parts(run, network, "head")
    places = {PROJECTOR: "head.mlp.", f"{PROTOTYPES}weight_": "head.last_layer.weight_"}
    if f"{PROTOTYPES}weight_v" not in state:
        return {}
    # A projector of one layer is no sequence there.
    if {name.removeprefix(PROJECTOR).partition(".")[0] for name in state if name.startswith(PROJECTOR)} == {"0"}:
        places = {f"{PROJECTOR}0.": "head.mlp.", **places}
    found = {}
    for name, tensor in state.items():
        begin = next(begin for begin in places if name.startswith(begin))
        found[places[begin] + name.removeprefix(begin)] = tensor
    return found


def _parts(run: Path | None, network: str, part: str) -> dict[str, Tensor]:
    """Return the state of a part from the newest checkpoint of a run; empty if there is none."""
    has_checkpoint = run is not None and any(run.glob("checkpoints/step-*"))
    return heads_of_run(run, network, (part,)) if run and has_checkpoint else {}


def _epochs(run: Path | None) -> int:
    """Return the number of epochs that a run has finished, by its last row of metrics; 0 if that is unknown."""
    rows = read_file(run / "metrics.jsonl", str.splitlines) if run else None
    last = json.loads(rows[-1]) if rows else {}
    return int(last.get("epoch", 0))


def _arguments(backbone: Backbone, head: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what DINO's code takes on its command line for these networks, and what its ViT takes besides."""
    arguments: dict[str, Any] = {"arch": getattr(backbone, "name", "").partition(".")[0]}
    if isinstance(backbone, TimmBackbone) and backbone.num_heads:
        width, depth = backbone.embed_dim, len(backbone.model.blocks)
        arguments = {
            "arch": ARCHITECTURES.get((width, depth), "vit"),
            "patch_size": backbone.patch_size,
            "embed_dim": width,
            "depth": depth,
            "num_heads": backbone.num_heads,
        }
    prototypes = head.get("head.last_layer.weight_v")
    return arguments if prototypes is None else {**arguments, "out_dim": len(prototypes)}
