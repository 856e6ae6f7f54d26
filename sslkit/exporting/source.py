"""Read what is exported: a backbone, the preprocessing of its images, and its run."""

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
        folder: the run folder, or that of a backbone without a run.
        network: what the backbone is: teacher, student, or the name of its folder.
        backbone: in eval mode and float32, on the CPU.
        preprocessing: how its images are prepared.
        license: of the weights, as the Hub calls it ("apache-2.0"); None leaves it open.
        repository: where they will be on the Hub, OWNER/NAME.
    """

    folder: Path
    network: str
    backbone: Backbone
    preprocessing: Preprocessing
    license: str | None = None
    repository: str | None = None

    @property
    def name(self) -> str:
        """The run's name and the network's."""
        return self.folder.name if self.folder.name == self.network else f"{self.folder.name}-{self.network}"


def read_source(
    folder: Path, network: str = "teacher", *, license: str | None = None, repository: str | None = None
) -> Source:
    """Load what is to be exported; arguments as for `Source`.

    Raises:
        SSLKitError: the folder holds neither a run nor a backbone.
    """
    # Resolved, so that no folder can be mistaken for another form of MODEL ("raw-pixels").
    place = Path(folder).expanduser().resolve()
    if not place.is_dir():
        raise SSLKitError(f"{folder} does not exist. RUN is a run folder, or one that holds a backbone.")
    model = load_model(str(place), network)
    run = next((path for path in (place, place.parent) if (path / "recipe.yaml").is_file()), place)
    return Source(run, model.network, model.backbone, model.preprocessing, license, repository)
