"""The folder that a run leaves behind."""

import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sslkit.contracts import Backbone
from sslkit.distributed import world_size
from sslkit.errors import NotSupported, SSLKitError
from sslkit.training.checkpoint import OTHER_RECIPE
from sslkit.training.log import write_text
from sslkit.types import DataStatistics

logger = logging.getLogger("sslkit.training")

STACK = ("sslkit", "torch", "torchvision", "timm", "kornia", "accelerate", "datasets", "jsonargparse", "pluggy")


@dataclass(frozen=True)
class Record:
    """What a run is, for its folder.

    Args:
        name: the recipe's.
        recipe: the resolved recipe as YAML.
        identity: hash of everything that decides what is learned.
        plugins: name, origin with version, and hooks of what offered the parts.
        device: that the run chose.
        precision: that the run chose.
    """

    name: str
    recipe: str
    identity: str
    plugins: Sequence[Mapping[str, Any]] = ()
    device: str = ""
    precision: str = ""


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder, and its writing.

    Args:
        path: the folder.
    """

    path: Path
    metrics: Path = field(init=False)
    results: Path = field(init=False)
    checkpoints: Path = field(init=False)

    def __post_init__(self) -> None:
        for name, place in (("metrics", "metrics.jsonl"), ("results", "results.json"), ("checkpoints", "checkpoints")):
            object.__setattr__(self, name, self.path / place)

    def check_free(self, resume: bool) -> None:
        """Refuse a folder that holds a run which nobody wants to go on with.

        Raises:
            SSLKitError: it holds a run and ``resume`` is false.
        """
        if not resume and any((self.path / name).exists() for name in ("recipe.yaml", "checkpoints")):
            raise SSLKitError(
                f"--run-dir: {self.path} already holds a run; add --resume to go on with it, or choose another folder"
            )

    def start(self, record: Record, statistics: DataStatistics, resume: bool) -> None:
        """Make the folder and write what does not change.

        Raises:
            SSLKitError: it holds a run and ``resume`` is false, it holds the run of another recipe, or it cannot be
                written.
        """
        self.check_free(resume)
        recipe = self.path / "recipe.yaml"
        if recipe.exists() and self._identity() not in (None, record.identity):
            raise SSLKitError(f"--run-dir: {self.path} holds the run of {OTHER_RECIPE}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not recipe.exists():
                write_text(recipe, record.recipe)
            write_text(self.path / "environment.json", json.dumps(environment(record), indent=1) + "\n")
            write_text(self.path / "data.json", json.dumps(asdict(statistics), indent=1) + "\n")
        except OSError as error:
            raise SSLKitError(f"--run-dir: {self.path} cannot be written: {error}") from error

    def save_backbones(self, backbones: Mapping[str, Backbone]) -> None:
        """Write each network's backbone by itself, under its name, whole or not at all.

        One that cannot be saved by itself costs a warning: the checkpoints hold it too.
        """
        for name, backbone in backbones.items():
            temporary, final = self.path / f".{name}.tmp", self.path / name
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                backbone.save(temporary)
            except NotSupported as error:
                shutil.rmtree(temporary)
                logger.warning("%s/ is not written: %s", name, error)
                continue
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)

    def _identity(self) -> str | None:
        """Return the identity of the run that lies here, if it says so."""
        try:
            found: str | None = json.loads((self.path / "environment.json").read_text()).get("identity")
        except (OSError, ValueError):
            return None
        return found


def environment(record: Record) -> dict[str, Any]:
    """Return what a figure of this run depends on besides its recipe."""
    return {
        "recipe": record.name,
        "identity": record.identity,
        "plugins": [dict(plugin) for plugin in record.plugins],
        "versions": {name: _version(name) for name in STACK},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "commit": _commit(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "device": record.device,
        "precision": record.precision,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "world_size": world_size(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of a checkout of sslkit, None for an installed one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout.strip() or None
