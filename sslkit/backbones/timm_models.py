"""Create timm models for several resolutions and small images, with readable errors."""

import difflib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models.resnet import ResNet
from torch import nn

from sslkit.errors import NotSupported, RecipeError, SSLKitError, UnknownName, reason_of
from sslkit.types import Preprocessing

FOREIGN = ("hf-hub:", "hf_hub:", "local-dir:")
"""Prefixes of names that refer to the Hub or a folder rather than to timm's list."""


NOT_MODEL_ARGS = {
    "model_name": "is the argument name of TimmBackbone",
    "pretrained": "is an argument of TimmBackbone itself",
    "num_classes": "has no use: a backbone has no classifier",
    "features_only": "has no use: a backbone returns one vector an image, not a list of feature maps",
    "out_indices": "has no use: a backbone returns one vector an image, not a list of feature maps",
}
"""Arguments of ``timm.create_model`` that ``model_args`` cannot hold, and why."""

ARCHITECTURE = (
    "architecture",
    "input_size",
    "fixed_input_size",
    "pool_size",
    "num_classes",
    "first_conv",
    "classifier",
)
"""Entries of timm's pretrained_cfg that describe the architecture; the others describe weights: tag, papers."""


def create_timm_model(name: str, pretrained: bool, arguments: Mapping[str, Any]) -> nn.Module:
    """Create a timm model without classifier, for several resolutions where its architecture allows that.

    Args:
        name: a timm name, with or without a pretrained tag, or ``hf-hub:...`` or ``local-dir:...``.
        pretrained: whether to load its weights.
        arguments: keyword arguments for timm.

    Raises:
        UnknownName: timm has no such model or tag.
        SSLKitError: the weights cannot be loaded, or the architecture does not take an argument.
    """
    _check_name(name)
    # timm has no list of the architectures that take dynamic_img_size, so it is tried first.
    dynamic: dict[str, Any] = {} if "dynamic_img_size" in arguments else {"dynamic_img_size": True}
    try:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **dynamic, **arguments)
        except TypeError as error:
            if not dynamic or _refused_argument(error) != "dynamic_img_size":
                raise
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    # The arguments of a model may raise errors of any class.
    except Exception as error:
        raise SSLKitError(_refusal(name, arguments, error)) from error


def check_model_args(model_args: Mapping[str, Any], in_chans: int) -> None:
    """Refuse arguments of timm that a backbone gives itself, or that make a model which is no backbone.

    Raises:
        RecipeError: naming the argument and what to do.
    """
    for name in model_args:
        if name in NOT_MODEL_ARGS:
            raise RecipeError(f"model_args: {name} {NOT_MODEL_ARGS[name]}; leave it out of model_args")
    if model_args.get("in_chans", in_chans) != in_chans:
        raise RecipeError(
            f"model_args: in_chans is {model_args['in_chans']}, but the images have {in_chans} channels "
            "(data.channels); leave it out of model_args"
        )


def use_small_image_stem(model: nn.Module, name: str) -> None:
    """Replace a ResNet's stem by one 3x3 stride-1 convolution without max-pool, for images of about 32 px.

    The usual change for CIFAR (SimCLR, arXiv:2002.05709, appendix B.9). The convolution is as wide as the stem
    that it replaces and is initialised as timm initialises convolutions.

    Args:
        model: changed in place.
        name: name of the model for the error message.

    Raises:
        NotSupported: the model is not a ResNet.
    """
    if not isinstance(model, ResNet):
        raise NotSupported(
            f"small_image_stem: {name!r} has no ResNet stem to replace. Choose a ResNet (resnet18, resnet50), or "
            "small_image_stem: false; for a ViT with model_args: {img_size: 32, patch_size: 4}."
        )
    resnet: Any = model
    small = nn.Conv2d(resnet.in_chans, len(resnet.bn1.weight), 3, padding=1, bias=False)
    # timm's initialisation of ResNets; that of torch's Conv2d differs.
    nn.init.kaiming_normal_(small.weight, mode="fan_out", nonlinearity="relu")
    resnet.conv1 = small.to(resnet.bn1.weight)
    resnet.maxpool = nn.Identity()


def images_for_timm(preprocessing: Preprocessing) -> dict[str, Any]:
    """Return a preprocessing as entries of timm's pretrained_cfg.

    timm resizes the shorter side to ``floor(size / crop_pct)``, so ``crop_pct`` is the largest number that gives
    ``preprocessing.resize``: the quotient, or the number before it where floor would lose a pixel.
    """
    crop_pct = preprocessing.size / preprocessing.resize
    while math.floor(preprocessing.size / crop_pct) < preprocessing.resize:
        crop_pct = math.nextafter(crop_pct, 0)
    return {
        "input_size": (preprocessing.channels, preprocessing.size, preprocessing.size),
        "mean": tuple(preprocessing.mean),
        "std": tuple(preprocessing.std),
        "interpolation": "bicubic",
        "crop_pct": crop_pct,
        "crop_mode": "center",
    }


def leave_out_num_classes(file: Path) -> None:
    """Remove num_classes from the model_args of a config.json that timm wrote; timm reads the entry outside of them.

    transformers' ``AutoModel`` passes the number of classes itself, and would pass it twice.
    """
    config = json.loads(file.read_text(encoding="utf-8"))
    config.get("model_args", {}).pop("num_classes", None)
    file.write_text(json.dumps(config, indent=2), encoding="utf-8")


def set_fused_attention(model: nn.Module, fused: bool) -> None:
    """Choose torch's fused attention or plain matrix products in every attention block."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused  # type: ignore[assignment]


def _check_name(name: str) -> None:
    if name.startswith(FOREIGN):
        return
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = difflib.get_close_matches(architecture, timm.list_models(), n=6, cutoff=0.5)
        raise UnknownName("timm model (nearest names shown; timm.list_models() has all)", name, near)
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")] if tag else []
    if tag and tag not in tags:
        raise UnknownName(f"pretrained tag of {architecture}", tag, tags)


def _refusal(name: str, arguments: Mapping[str, Any], error: Exception) -> str:
    """Return the message for an error of timm, naming the argument that it refuses, if it names one."""
    refused, reason = _refused_argument(error), reason_of(error)
    if refused is None:
        given = {key: value for key, value in arguments.items() if key != "in_chans"}
        return f"timm model {name!r} cannot be created{f' with {given}' if given else ''}: {reason}"
    if refused not in arguments or refused in ("in_chans", "drop_path_rate"):
        return f"timm model {name!r} does not take {refused!r}: {reason}"
    return (
        f"timm model {name!r} does not take {refused!r}: it is in model_args, which an override of the name alone "
        "leaves as they are in the recipe; --method.backbone.model_args null drops them"
    )


def _refused_argument(error: Exception) -> str | None:
    """Return the keyword that a signature does not have, by the words of Python or of timm; None for other errors."""
    match = re.search(r"unexpected keyword argument(?:\(s\))?\W*'(\w+)'", str(error))
    return match.group(1) if match and isinstance(error, TypeError) else None
