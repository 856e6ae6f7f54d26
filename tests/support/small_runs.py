"""Real runs of the four methods that take seconds: a network of two convolutions on textures of 32 pixels.

The file is also the plugin that offers the network.
"""

from contextlib import suppress
from io import StringIO
from pathlib import Path

from rich.console import Console
from torch import Tensor, nn

from sslkit.contracts import Backbone
from sslkit.errors import RunError
from sslkit.health.doctor import Diagnosis, diagnose_run
from sslkit.launch import train
from sslkit.plugins import using
from sslkit.recipe import load
from sslkit.types import Features


class SmallConvNet(Backbone):
    """A convolution of patches and one of 3 x 3, with batch norms, and a mean over positions.

    Args:
        width: channels of the first one; the features have twice as many.
        in_chans: channels of the images.
    """

    patch_size = None

    def __init__(self, width: int = 24, in_chans: int = 3) -> None:
        super().__init__()
        self.in_chans, self.embed_dim = in_chans, 2 * width
        self.network = nn.Sequential(
            nn.Conv2d(in_chans, width, 4, 4, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, 1, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        )  # fmt: skip

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        return Features(self.network(images).mean((2, 3)))


def textures(split: str, num_images: int, seed: int = 0, layout: str = "full") -> str:
    return f"{{Textures: {{num_images: {num_images}, split: {split}, seed: {seed}, layout: {layout}}}}}"


def changes(method: str, steps: int, batch_size: int = 32, prototypes: int = 64, test_images: int = 500) -> dict:
    """Return what turns a tiny CIFAR-10 recipe into a run of seconds, by dotted key."""
    of_method = {
        "dino": {"method.head.num_prototypes": prototypes},
        "swav": {"method.head.num_prototypes": prototypes},
        "moco-v2": {"method.collapse": "{NegativeQueue: {size: 256}}"},
        "byol": {},
    }
    return {
        "method.backbone": "SmallConvNet",
        "method.head.hidden_dim": 64,
        "method.head.embed_dim": 32,
        **of_method[method],
        "data.train": textures("train", 2000),
        "data.test": textures("test", test_images),
        "data.num_images": "null",
        "data.mean": "[0.5, 0.5, 0.5]",
        "data.std": "[0.25, 0.25, 0.25]",
        "views.global_size": 32,
        "optimization.steps": steps,
        "optimization.batch_size": batch_size,
        "optimization.lr": f"{{Cosine: {{start: 0.004, end: 1.0e-6, warmup: {steps // 10} steps}}}}",
        "evaluation.every": f"{steps // 2} steps",
        "evaluation.evaluators": "[{KNN: {k: [20]}}]",
        "runtime.num_workers": 0,
        "runtime.threads": 1,
        "runtime.device": "cpu",
        "runtime.checkpoint_every": "1000 epochs",
        "precision": "fp32",
    }


def run(method: str, folder: Path, overrides: dict, **sizes: int) -> Diagnosis:
    """Train, to the end or to an error of the run, and return the diagnosis of the folder."""
    values = {**changes(method, **sizes), **overrides}
    words = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    with using([Path(__file__)]):
        with suppress(RunError):
            train(load(f"{method}-cifar10-tiny", words), folder, console=Console(file=StringIO()))
        return diagnose_run(folder)
