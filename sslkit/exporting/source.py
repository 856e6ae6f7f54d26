"""Source of an export: a backbone, the preprocessing of its images, and its run."""

from dataclasses import dataclass
from pathlib import Path

from sslkit.backbones.loading import load_model
from sslkit.contracts import Backbone
from sslkit.errors import SSLKitError
from sslkit.paths import local_path
from sslkit.types import Preprocessing


@dataclass(frozen=True)
class Source:
    """A backbone to export.

    Args:
        folder: the run folder, the folder of a backbone without a run, or a file of weights.
        network: "teacher" or "student", or the name of the folder of a backbone without a run.
        backbone: in eval mode and float32, on the CPU.
        preprocessing: how its images are prepared.
        license: identifier of the weights' license on the Hub ("apache-2.0"), or None.
        repository: of the weights on the Hub, OWNER/NAME, or None.
    """

    folder: Path
    network: str
    backbone: Backbone
    preprocessing: Preprocessing
    license: str | None = None
    repository: str | None = None

    @property
    def name(self) -> str:
        """Name of the run and the network, without repetition."""
        # Of a file without its ending, as a ".pth" within the name of a folder would read like one.
        name = self.folder.name.partition(".")[0] if self.folder.is_file() else self.folder.name
        return name if name == self.network else f"{name}-{self.network}"


def read_source(
    folder: Path,
    network: str | None = None,
    architecture: str | None = None,
    *,
    license: str | None = None,
    repository: str | None = None,
) -> Source:
    """Load a backbone to export.

    Args:
        folder: a run folder, a folder with a saved backbone, or a file of weights.
        network: teacher or student of a run or a file; None as for `load_model`.
        architecture: timm name of the network in a file, as for `load_model`.
        license: as for `Source`.
        repository: as for `Source`.

    Raises:
        SSLKitError: there is neither a run nor a backbone.
    """
    # An absolute path, so that `load_model` cannot take the name of a folder for another kind of model (raw-pixels).
    place = local_path(folder).resolve()
    if not place.exists():
        raise SSLKitError(f"{folder} does not exist. RUN is a run folder, or holds a backbone.")
    model = load_model(str(place), network, architecture=architecture)
    places = (place, place.parent) if place.is_dir() else ()
    run = next((path for path in places if (path / "recipe.yaml").is_file()), place)
    return Source(run, model.network, model.backbone, model.preprocessing, license, repository)
