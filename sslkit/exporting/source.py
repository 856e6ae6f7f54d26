"""Source of an export: a backbone, the preprocessing of its images, and its run."""

from dataclasses import dataclass
from pathlib import Path

from sslkit.backbones.loading import load_model
from sslkit.contracts import Backbone
from sslkit.errors import SSLKitError
from sslkit.types import Preprocessing


@dataclass(frozen=True)
class Source:
    """A backbone to export.

    Args:
        folder: the run folder, or the folder of a backbone without a run.
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
        return self.folder.name if self.folder.name == self.network else f"{self.folder.name}-{self.network}"


def read_source(
    folder: Path, network: str = "teacher", *, license: str | None = None, repository: str | None = None
) -> Source:
    """Load a backbone to export.

    Args:
        folder: a run folder, or a folder with a saved backbone.
        network: teacher or student of a run.
        license: as for `Source`.
        repository: as for `Source`.

    Raises:
        SSLKitError: the folder holds neither a run nor a backbone.
    """
    # An absolute path, so that `load_model` cannot take the name of a folder for another kind of model (raw-pixels).
    place = Path(folder).expanduser().resolve()
    if not place.is_dir():
        raise SSLKitError(f"{folder} does not exist. RUN is a run folder, or one that holds a backbone.")
    model = load_model(str(place), network)
    run = next((path for path in (place, place.parent) if (path / "recipe.yaml").is_file()), place)
    return Source(run, model.network, model.backbone, model.preprocessing, license, repository)
