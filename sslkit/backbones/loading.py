"""Load a frozen backbone from a run, a folder, timm, the Hub, or raw pixels."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sslkit.backbones.foreign import read_checkpoint
from sslkit.backbones.matching import compare, take
from sslkit.backbones.preprocessing import (
    default_preprocessing,
    read_preprocessing,
    recorded_statistics,
    timm_statistics,
)
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.recognition import recognise
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.contracts import Backbone
from sslkit.errors import SSLKitError, UnknownName, message_of, some
from sslkit.paths import local_path
from sslkit.plugins import active
from sslkit.types import Preprocessing

FORMS = (
    "MODEL is a run folder, an exported folder, a .pth or .safetensors file, timm:NAME (pretrained), untrained:NAME, "
    "hf-hub:OWNER/NAME, or raw-pixels[:plain|centered|gray-centered]"
)


@dataclass(frozen=True)
class LoadedModel:
    """A backbone ready for evaluation, in eval mode and float32.

    Args:
        backbone: the network.
        preprocessing: preprocessing of its images.
        network: "teacher", "student", or the name of another origin, for results.
    """

    backbone: Backbone
    preprocessing: Preprocessing
    network: str


def load_model(
    spec: str, network: str | None = None, channels: int = 3, architecture: str | None = None
) -> LoadedModel:
    """Load a backbone by the MODEL of the command line.

    A run or an export records the preprocessing of its images in data.json. For models of timm and the Hub, mean, std
    and size are those of timm's pretrained_cfg, and the shorter side is resized to 8/7 of the size, the paper's 256 for
    224. What is not recorded is as for ImageNet. Untrained weights are drawn with seed 0.

    Args:
        spec: a run folder, an exported folder, a file of weights, ``timm:NAME``, ``untrained:NAME``,
            ``hf-hub:OWNER/NAME``, ``raw-pixels`` or ``raw-pixels:VARIANT``.
        network: teacher or student, of a run or a file; None is the teacher of a run, and of a file the one that its
            method evaluates.
        channels: number of channels of the images; used only for ``raw-pixels``, ``timm``, ``untrained`` and
            ``hf-hub``.
        architecture: timm name of the network in a file; None recognises plain ViTs and ResNets by their weights.

    Raises:
        SSLKitError: there is no such model, or it cannot be read.
    """
    path = local_path(spec)
    if path.is_file():
        return _load_file(path, network, architecture)
    if architecture is not None:
        raise SSLKitError(f"--backbone names the network of a file of weights, and {spec} is no file")
    source, _, name = spec.partition(":")
    if source == "raw-pixels":
        variant: Any = name or "plain"
        return _ready(RawPixels(variant, channels), default_preprocessing(channels), f"raw-pixels ({variant})")
    if source == "untrained":
        untrained = _drawn_with_seed_0(lambda: TimmBackbone(name, channels))
        size = {"input_size": untrained.model.pretrained_cfg["input_size"]}
        return _ready(untrained, timm_statistics(size, channels), spec)
    if source in ("timm", "hf-hub"):
        pretrained = TimmBackbone(name if source == "timm" else spec, channels, pretrained=True)
        return _ready(pretrained, timm_statistics(pretrained.model.pretrained_cfg, channels), spec)
    folder, called = _find(path, network or "teacher")
    backbone = load_backbone(folder)
    return _ready(
        backbone, read_preprocessing(folder, folder.parent) or recorded_statistics(folder, backbone.in_chans), called
    )


def load_backbone(folder: Path) -> Backbone:
    """Load a folder that ``Backbone.save`` or timm's ``save_for_hf`` wrote.

    Raises:
        SSLKitError: the folder holds no backbone, or one of a class that neither sslkit nor an installed plugin has.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or not isinstance(config.get("sslkit", {}), dict):
            raise SSLKitError(
                f"{folder / 'config.json'} is not that of a backbone: it holds no mapping where one belongs"
            )
        if "onnx" in config:
            raise SSLKitError(f"{folder} holds a network for ONNX Runtime; take the run, or export it with --to timm")
        name = str(config.get("sslkit", {}).get("backbone", TimmBackbone.__name__))
        known = active().registry.names("backbones")
        # Only registered names: a downloaded folder must not choose what is imported.
        if name not in known:
            raise UnknownName("backbone", name, known, where=str(folder / "config.json"))
        found: Any = active().registry.get("backbones", name)
        loaded: Backbone = found.load(folder)
    except SSLKitError:
        raise
    except Exception as error:  # a damaged folder raises nearly every kind of exception in timm and torch
        raise SSLKitError(f"{folder}: cannot load this backbone: {message_of(error)}") from error
    return loaded


def untrained_like(backbone: Backbone) -> Backbone | None:
    """Return a network of the same architecture with weights drawn with seed 0; None where there is no such thing."""
    if not isinstance(backbone, TimmBackbone):
        return None
    return _drawn_with_seed_0(backbone.untrained).eval()


def _load_file(path: Path, network: str | None, architecture: str | None) -> LoadedModel:
    """Load a file of weights, whose network is recognised or named; only heads and classifiers may be left over."""
    weights = read_checkpoint(path, network)
    arguments: Mapping[str, Any] = {"name": architecture} if architecture else recognise(weights)
    backbone = _drawn_with_seed_0(lambda: TimmBackbone(**arguments))
    found, wrong = compare(backbone, weights)
    if not found.taken or any(wrong.values()):
        differing = "; ".join(f"{what}: {some(names)}" for what, names in wrong.items() if names)
        named = f"the weights of {architecture}" if architecture else "those of a plain ViT or ResNet that timm has"
        raise SSLKitError(
            f"{weights.source}: its weights are not {named} ({differing}). Name its network: --backbone NAME, a timm "
            "model such as vit_small_patch16_224"
        )
    take(backbone, found)
    default = timm_statistics({"input_size": _input_size(backbone)}, backbone.in_chans)
    return _ready(backbone, read_preprocessing(path.parent) or default, weights.network)


def _input_size(backbone: TimmBackbone) -> Sequence[int]:
    """Return the size of the images that a network was made for: that of a ViT's stored positions, or timm's."""
    embed = getattr(backbone.model, "patch_embed", None)
    return getattr(embed, "img_size", None) or backbone.model.pretrained_cfg["input_size"]


def _drawn_with_seed_0(make: Callable[[], TimmBackbone]) -> TimmBackbone:
    """Return what ``make`` draws with seed 0, whatever the caller's random state, which stays as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def _find(path: Path, network: str) -> tuple[Path, str]:
    """Return the folder of the weights, and the name of the network."""
    if (path / "config.json").is_file():
        return path, path.resolve().name
    if (path / "recipe.yaml").is_file():
        saved = [file.parent.name for file in sorted(path.glob("*/config.json"))]
        if not saved:
            raise SSLKitError(f"{path}: this run has not saved its networks yet")
        if network not in saved:
            raise UnknownName("network", network, saved, where=str(path))
        return path / network, network
    problem = "holds neither a run nor a backbone" if path.is_dir() else "does not exist"
    raise SSLKitError(f"{path} {problem}. {FORMS}.")


def _ready(backbone: Backbone, preprocessing: Preprocessing, network: str) -> LoadedModel:
    return LoadedModel(backbone.float().eval(), preprocessing, network)
