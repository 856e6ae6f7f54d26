"""Export as a checkpoint of DINO's own code (facebookresearch/dino), which its evaluation scripts read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sslkit.backbones.foreign import CENTER, PROJECTOR, PROTOTYPES
from sslkit.backbones.loading import load_model
from sslkit.checkpoint.heads import heads_of_run
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, SSLKitError
from sslkit.exporting.provenance import read as read_file
from sslkit.exporting.source import Source

FILE = "checkpoint.pth"
LAST = "head.last_layer.weight_v"


@runtime_checkable
class KnownToPublishedCode(Protocol):
    """A backbone that DINO's code may build."""

    def for_published_code(self, size: int) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return weights by the names of that code, and the arguments by which it builds the network.

        Args:
            size: of the images for which the features must be equal, in pixels.

        Raises:
            NotSupported: it does not build such a network.
        """


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
    checkpoint: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for name, backbone in networks.items():
        weights, built_by = _published(backbone, source.preprocessing.size)
        head = _head(run, name)
        checkpoint[name] = _state(weights, head, name)
        arguments = {**built_by, **({"out_dim": len(head[LAST])} if head else {})}
    center = _parts(run, "teacher", "collapse").get(CENTER)
    checkpoint |= {"epoch": _epochs(run), "args": arguments}
    if center is not None:
        checkpoint["dino_loss"] = {"center": center[None]}
    torch.save(checkpoint, folder / FILE)


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """Return the teacher in checkpoint.pth, as a function from images (N, C, H, W) to features (N, F)."""
    backbone = load_model(str(folder / FILE)).backbone
    return lambda images: backbone(images).cls


def _published(backbone: Backbone, size: int) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    if not isinstance(backbone, KnownToPublishedCode):
        raise NotSupported(
            f"{type(backbone).__name__} is no network that DINO's code builds. --to onnx takes any backbone."
        )
    return backbone.for_published_code(size)


def _state(weights: Mapping[str, Tensor], head: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """Return the state of a network by the names of DINO's code, where the student is wrapped for several processes."""
    named = {**{f"backbone.{name}": tensor for name, tensor in weights.items()}, **head}
    # So is a teacher with batch norms, for the sake of their statistics.
    wrapped = network == "student" or any(name.endswith("running_mean") for name in named)
    return {f"{'module.' if wrapped else ''}{name}": tensor.detach().contiguous() for name, tensor in named.items()}


def _head(run: Path | None, network: str) -> dict[str, Tensor]:
    """Return the state of a run's head by the names of DINO's code; empty if it is no head of DINO with prototypes."""
    state = _parts(run, network, "head")
    places = {PROJECTOR: "head.mlp.", f"{PROTOTYPES}weight_": LAST.removesuffix("v")}
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
