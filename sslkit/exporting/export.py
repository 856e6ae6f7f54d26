"""Export of a run's backbone to formats of other programs, with a check of the result."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from sslkit.errors import SSLKitError, UnknownName
from sslkit.exporting import hub_folder, official_checkpoint, onnx_folder, timm_folder
from sslkit.exporting.agreement import TOLERANCE, features_of, largest_difference, trial_images
from sslkit.exporting.source import Source, read_source
from sslkit.paths import local_path
from sslkit.progress import working


@dataclass(frozen=True)
class Target:
    """A format to export to.

    Args:
        write: writes a source into an empty folder.
        read: loads that folder as users do, and returns a function from images (N, C, H, W) to features (N, F).
    """

    write: Callable[[Source, Path], None]
    read: Callable[[Path], Callable[[Tensor], Tensor]]


TARGETS = {
    "timm": Target(timm_folder.write, timm_folder.read),
    "hf": Target(hub_folder.write, timm_folder.read),
    "onnx": Target(onnx_folder.write, onnx_folder.read),
    "dino": Target(official_checkpoint.write, official_checkpoint.read),
}


@dataclass(frozen=True)
class Exported:
    """The result of an export.

    Args:
        folder: the new folder.
        network: the exported network, "teacher" or "student".
        difference: largest relative difference of its features from those of the run's backbone.
    """

    folder: Path
    network: str
    difference: float


def export(
    run: str | Path,
    to: str = "timm",
    network: str | None = None,
    out: str | Path | None = None,
    *,
    architecture: str | None = None,
    license: str | None = None,
    repository: str | None = None,
) -> Exported:
    """Write a run's backbone in the format of another program, load it back, and compare the features.

    The folder is created completely or not at all. Its data.json describes how images are preprocessed.

    Args:
        run: a run folder, a folder with a saved backbone, or a file of weights.
        to: ``timm``, ``hf`` (timm's folder with a model card, for the Hugging Face Hub), ``onnx`` or
            ``dino`` (a checkpoint of DINO's own code).
        network: teacher or student of a run or a file; None is the teacher of a run, and of a file the one that its
            method evaluates.
        out: the new folder; None for ``<run>-<network>-<to>`` beside the run.
        architecture: timm name of the network in a file of weights; None recognises plain ViTs and ResNets.
        license: of the weights, for the model card.
        repository: on the Hub, OWNER/NAME, for the model card.

    Raises:
        SSLKitError: there is no such run, the backbone cannot be written in this format, the folder exists and is not
            empty, or the features differ by more than ``TOLERANCE``.
    """
    if to not in TARGETS:
        raise UnknownName("target", to, TARGETS, where="--to")
    source = read_source(Path(run), network, architecture, license=license, repository=repository)
    folder = local_path(out).resolve() if out else source.folder.with_name(f"{source.name}-{to}")
    _check_free(folder)
    # Before anything is written: the features of a diverged run are refused here.
    batches = trial_images(source.preprocessing)
    expected = features_of(source.backbone, batches)
    # Beside the folder, so that `replace` is a rename within one file system.
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        with working(f"exporting to {to}"):
            TARGETS[to].write(source, temporary)
        text = json.dumps(asdict(source.preprocessing), indent=1) + "\n"
        (temporary / "data.json").write_text(text, encoding="utf-8")
        with working("loading it back and comparing the features"):
            difference = largest_difference(TARGETS[to].read(temporary), batches, expected)
        _check_agreement(to, difference)
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:
        raise SSLKitError(f"--out: {folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Exported(folder, source.network, difference)


def _check_free(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists():
        raise SSLKitError(f"--out: {folder} is there already and is no empty folder; choose another, or remove it")


def _check_agreement(to: str, difference: float) -> None:
    # Not `difference > TOLERANCE`, which is false for NaN.
    if not difference <= TOLERANCE:
        raise SSLKitError(
            f"--to {to}: the exported model's features differ from the run's by {difference:.1e} of their length, more "
            f"than {TOLERANCE:.0e}; nothing was written"
        )
