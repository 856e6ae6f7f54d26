"""Export for timm: ``timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import timm
from torch import Tensor

from sslkit.errors import NotSupported, SSLKitError
from sslkit.exporting.source import Source
from sslkit.types import Preprocessing


@runtime_checkable
class KnownToTimm(Protocol):
    """A backbone that can save itself for timm."""

    def save_for_timm(self, folder: Path, preprocessing: Preprocessing) -> None:
        """Write model.safetensors and a config.json from which timm builds the same network.

        Raises:
            NotSupported: timm cannot build this backbone.
        """


def write(source: Source, folder: Path) -> None:
    """Write the weights and a config.json with architecture and preprocessing in timm's format.

    Raises:
        NotSupported: timm cannot build this backbone.
    """
    backbone = source.backbone
    if not isinstance(backbone, KnownToTimm):
        raise NotSupported(f"{type(backbone).__name__} is no timm model. --to onnx takes any backbone.")
    backbone.save_for_timm(folder, source.preprocessing)


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """Load the folder with timm, as users do, and return the model in eval mode.

    Raises:
        SSLKitError: timm cannot load it.
    """
    try:
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    except (RuntimeError, TypeError, ValueError, AssertionError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise SSLKitError(f"timm cannot load this backbone back: {reason}. --to onnx takes any backbone.") from error
    return model.eval()
