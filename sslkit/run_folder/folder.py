"""Write the run folder: recipe, environment, preprocessing, and both backbones by themselves."""

import json
import logging
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sslkit.backbones.preprocessing import read_preprocessing
from sslkit.contracts import Backbone
from sslkit.distributed import world_size
from sslkit.errors import NotSupported, SSLKitError
from sslkit.run_folder.atomic_write import refuse_links, sync, writable, write_text
from sslkit.run_folder.lock import alone_in
from sslkit.types import Preprocessing

logger = logging.getLogger("sslkit.training")

STACK = ("sslkit", "torch", "torchvision", "timm", "kornia", "accelerate", "datasets", "jsonargparse", "pluggy")

OTHER_RECIPE = (
    "another recipe than the one given: method, views, data, optimization, precision or seed differ. Resume with the "
    "run's own recipe.yaml, or choose another --run-dir."
)


@dataclass(frozen=True)
class Record:
    """The description of a run that its folder keeps.

    Args:
        name: of the recipe.
        recipe: resolved, as YAML.
        identity: hash of everything that decides what is learned.
        plugins: name, origin with version, and hooks of the plugins that offered components.
        device: chosen by the run.
        precision: chosen by the run.
    """

    name: str
    recipe: str
    identity: str
    plugins: Sequence[Mapping[str, Any]] = ()
    device: str = ""
    precision: str = ""


@dataclass(frozen=True)
class RunFolder:
    """A run folder: its paths, and what is written there once.

    Args:
        path: the folder.
    """

    path: Path
    metrics: Path = field(init=False)
    skipped: Path = field(init=False)
    results: Path = field(init=False)
    checkpoints: Path = field(init=False)

    def __post_init__(self) -> None:
        for place in ("metrics.jsonl", "skipped.jsonl", "results.json", "checkpoints"):
            object.__setattr__(self, Path(place).stem, self.path / place)

    def check_free(self, resume: bool) -> None:
        """Refuse a folder that holds a run which is not to be resumed.

        Raises:
            SSLKitError: it holds a run and ``resume`` is false.
        """
        if not resume and any((self.path / name).exists() for name in ("recipe.yaml", "checkpoints")):
            raise SSLKitError(
                f"--run-dir: {self.path} already holds a run; add --resume to continue it, or choose another folder"
            )

    @contextmanager
    def held(self, record: Record, resume: bool) -> Iterator[None]:
        """Lock the folder, which is created if need be, against other processes.

        Raises:
            SSLKitError: as `check`, or another process has locked it, or it cannot be written.
        """
        self.check(record, resume)
        with alone_in(self.path):
            yield

    def check(self, record: Record, resume: bool) -> None:
        """Refuse a folder that is not this run's to write.

        Raises:
            SSLKitError: it holds a run and ``resume`` is false, it holds the run of another recipe, or it holds links.
        """
        self.check_free(resume)
        for place in (self.path, self.checkpoints):
            refuse_links(place)
        if (self.path / "recipe.yaml").exists() and self._identity() not in (None, record.identity):
            raise SSLKitError(f"--run-dir: {self.path} holds the run of {OTHER_RECIPE}")

    def start(self, record: Record, preprocessing: Preprocessing, resume: bool) -> None:
        """Create the folder and write what does not change during the run.

        Raises:
            SSLKitError: as `check`, or it cannot be written.
        """
        self.check(record, resume)
        recipe = self.path / "recipe.yaml"
        with writable(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            if not recipe.exists():
                write_text(recipe, record.recipe)
            write_text(self.path / "environment.json", json.dumps(environment(record), indent=1) + "\n")
            write_text(self.path / "data.json", json.dumps(asdict(preprocessing), indent=1) + "\n")

    def save_backbones(self, backbones: Mapping[str, Backbone]) -> None:
        """Write the backbone of each network to a folder of its name, whole or not at all, with its preprocessing.

        A backbone that cannot be saved by itself is a warning: the checkpoints hold it too.

        Raises:
            OSError: it cannot be written; what was there stays.
            SSLKitError: data.json is damaged.
        """
        preprocessing = read_preprocessing(self.path)
        for name, backbone in backbones.items():
            temporary = self.path / f".{name}.tmp"
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            try:
                backbone.save(temporary, preprocessing)
                self._put(temporary, name)
            except NotSupported as error:
                logger.warning("%s/ is not written: %s", name, error)
            except SafetensorError as error:
                raise OSError(str(error)) from error
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _put(self, folder: Path, name: str) -> None:
        """Rename a folder to ``name``, in place of the one that has that name."""
        # Before the rename, or a crash could leave the name on files that are still empty on the disk.
        for file in (*folder.iterdir(), folder):
            sync(file)
        final, old = self.path / name, self.path / f".{name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        folder.rename(final)
        shutil.rmtree(old, ignore_errors=True)

    def _identity(self) -> str | None:
        """Return the identity of the run in this folder, None where it is not recorded."""
        try:
            found = json.loads((self.path / "environment.json").read_text())
        except (OSError, ValueError):
            return None
        identity = found.get("identity") if isinstance(found, dict) else None
        return identity if isinstance(identity, str) else None


def environment(record: Record) -> dict[str, Any]:
    """Return what the results of this run depend on besides its recipe."""
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
