"""Export to ONNX."""

import json
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, install_command
from sslkit.exporting.source import Source

OPSET = 20
FILE = "model.onnx"
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def write(source: Source, folder: Path) -> None:
    """Write model.onnx, from normalised images (batch, C, H, W) to features (batch, F), and a config.json.

    The batch size is dynamic. The size of images is fixed to that of the preprocessing, which model.onnx contains as
    metadata.

    Raises:
        NotSupported: a package is missing, or the backbone has an operation that ONNX cannot represent.
    """
    check_packages()
    shape = (source.preprocessing.channels, source.preprocessing.size, source.preprocessing.size)
    features = _Features(source.backbone).eval()
    try:
        program: Any = torch.onnx.export(
            features,
            # Two images: torch.export would take a batch of 1 for a constant and refuse a dynamic one.
            (torch.zeros(2, *shape),),
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=OPSET,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        # torch's own message is a report of many lines; its cause says what is not supported.
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise NotSupported(f"{type(source.backbone).__name__} cannot be written as ONNX: {reason}") from error
    program.model.metadata_props["data_statistics"] = json.dumps(asdict(source.preprocessing))
    program.save(folder / FILE)
    graph = {
        "file": FILE,
        "opset": OPSET,
        "input": {"name": "images", "dtype": "float32", "shape": ["batch", *shape]},
        "output": {"name": "features", "dtype": "float32", "shape": ["batch", source.backbone.embed_dim]},
    }
    text = json.dumps({"network": source.network, "onnx": graph}, indent=2)
    (folder / "config.json").write_text(text, encoding="utf-8")


def read(folder: Path) -> Callable[[Tensor], Tensor]:
    """Return model.onnx in ONNX Runtime on the CPU, as a function from images (N, C, H, W) to features (N, F)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["features"], {"images": images.numpy()})[0])


def check_packages() -> None:
    """Raise an error if a package that the export needs is not installed.

    Raises:
        NotSupported: naming the missing packages.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise NotSupported(f"--to onnx needs {', '.join(missing)}: {install_command(*missing)}")


class _Features(nn.Module):
    """Wrapper that returns the features of a backbone as a tensor, since a graph cannot return `Features`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images).cls
        return features
