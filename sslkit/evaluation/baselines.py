"""What evaluations are compared with, raw pixels and the untrained network, and what it costs to measure them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from sslkit.backbones.loading import LoadedModel, untrained_like
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.contracts import Backbone
from sslkit.evaluators.features import frozen
from sslkit.types import Preprocessing

RAW_PIXELS, UNTRAINED = "raw-pixels", "untrained"
BASELINES = (RAW_PIXELS, UNTRAINED)

CHEAP_SECONDS = 30.0
"""The largest estimate at which a baseline is measured without being asked for."""
CHEAP_SHARE = 0.05
"""The largest share of a run, in the same way."""
ALWAYS_CHEAP_SECONDS = 2.0
"""The estimate up to which the share does not matter: nobody waits for it, not even in a trial of a few steps."""

FLOPS_PER_SECOND = {"cpu": 5e10, "cuda": 1e13}
"""Float32 operations of two CPU cores, and of a GPU; of other devices 1e12."""


@dataclass(frozen=True)
class EvaluationCost:
    """A coarse estimate of what evaluations of two splits cost, in seconds: the same wherever and whenever it is asked.

    An evaluation passes each image through the network once and compares each test image with each training image.

    Args:
        num_train: training images.
        num_test: test images.
        preprocessing: of the images.
        device: where the networks are.
        workers: processes that read images.
    """

    num_train: int
    num_test: int
    preprocessing: Preprocessing
    device: torch.device
    workers: int = 0

    def baselines(self, backbones: Mapping[str, Backbone]) -> dict[str, float]:
        """Return the seconds of each baseline, given its backbone, or one of its backbones."""
        return {
            name: (len(RawPixels.VARIANTS) if name == RAW_PIXELS else 1)
            * self.evaluation(self.forward_operations(backbone), backbone.embed_dim)
            for name, backbone in backbones.items()
        }

    def evaluation(self, operations: float, features: int) -> float:
        """Return the seconds of one evaluation.

        Args:
            operations: of the network, for an image.
            features: their number, for an image.
        """
        images = self.num_train + self.num_test
        # Decoding, resizing and cropping: measured on JPEG files of 32 px and of 500 px, one process.
        reading = (2e-4 + 1e-7 * self.preprocessing.resize**2) / max(1, self.workers)
        compared = 2 * features * self.num_train * self.num_test
        return images * reading + self._seconds(images * operations + compared)

    def training(self, backbone: Backbone, views: float) -> float:
        """Return the seconds that a run takes at least.

        Args:
            backbone: of its networks.
            views: that pass through them, counted as views of the evaluation's size.
        """
        # A forward pass of the teacher and one of the student, whose backward pass takes two more.
        return self._seconds(4 * views * self.forward_operations(backbone))

    def forward_operations(self, backbone: Backbone) -> float:
        """Return the floating-point operations of a forward pass of one image, counted on a pass."""
        size, channels = self.preprocessing.size, self.preprocessing.channels
        image = torch.zeros(1, channels, size, size, device=self.device)
        counter = FlopCounterMode(display=False)
        # A compiled network would be compiled once more for this batch, and its kernels are not counted.
        backbone.to(self.device)
        with torch.compiler.set_stance("force_eager"), frozen(backbone), counter:
            backbone(image)
        return float(counter.get_total_flops())

    def _seconds(self, operations: float) -> float:
        return operations / FLOPS_PER_SECOND.get(self.device.type, 1e12)


def raw_pixels(channels: int) -> dict[str, RawPixels]:
    """Return the variants of raw pixels, by their names in results."""
    return {f"{RAW_PIXELS} ({variant})": RawPixels(variant, channels) for variant in RawPixels.VARIANTS}


def baselines_of(model: LoadedModel) -> dict[str, list[LoadedModel]]:
    """Return what a model is compared with, ready for evaluation: nothing where it is a baseline itself."""
    found: dict[str, list[LoadedModel]] = {}
    if model.network.startswith(RAW_PIXELS):
        return found
    variants = raw_pixels(model.preprocessing.channels)
    found[RAW_PIXELS] = [replace(model, backbone=each, network=name) for name, each in variants.items()]
    untrained = None if model.network.startswith(UNTRAINED) else untrained_like(model.backbone)
    if untrained is not None:
        found[UNTRAINED] = [replace(model, backbone=untrained, network=UNTRAINED)]
    return found


def cheap(costs: Mapping[str, float], run: float = math.inf) -> list[str]:
    """Return the baselines that are measured without being asked for: those of few seconds and a small share of a run.

    Args:
        costs: seconds of each baseline.
        run: seconds of the run that they belong to.
    """
    most = min(CHEAP_SECONDS, max(ALWAYS_CHEAP_SECONDS, CHEAP_SHARE * run))
    return [name for name, seconds in costs.items() if seconds <= most]


def left_out(costs: Mapping[str, float], measured: list[str], option: str) -> str:
    """Return a sentence on the baselines that are not measured, and how to ask for them; empty where there are none.

    Args:
        costs: seconds of each baseline.
        measured: those that are.
        option: sets the baselines, with its value.
    """
    names = [f"{name} (about {_rounded(costs[name])})" for name in costs if name not in measured]
    return f"note: not measured: {' and '.join(names)}. To compare with them: {option}" if names else ""


def _rounded(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:,.0f} min"
