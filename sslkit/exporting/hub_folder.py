"""Export for the Hugging Face Hub: timm's folder with a model card, and its upload."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from sslkit import __version__
from sslkit.errors import SSLKitError
from sslkit.exporting import timm_folder
from sslkit.exporting.model_card import model_card
from sslkit.exporting.source import Source

CARD = "README.md"


def write(source: Source, folder: Path) -> None:
    """Write the files that timm loads as ``hf-hub:OWNER/NAME``, and the model card.

    Raises:
        NotSupported: timm cannot build this backbone.
    """
    timm_folder.write(source, folder)
    (folder / CARD).write_text(model_card(source), encoding="utf-8")


def check_repository(name: str) -> None:
    """Raise an error if a name is not a repository OWNER/NAME.

    Raises:
        SSLKitError: the Hub does not allow the name, or it has no owner.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise SSLKitError(f"--push: {error}") from error
    if name.count("/") != 1:
        raise SSLKitError(f"--push takes OWNER/NAME, as in --push my-name/my-model, not {name!r}")


def push(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload a folder to the Hub and return the URL of the repository; an existing model card is not overwritten.

    Args:
        folder: written by `write`.
        repository: OWNER/NAME, created if it does not exist.
        private: whether a new repository is private.

    Raises:
        SSLKitError: the upload failed; the local folder is not changed.
    """
    check_repository(repository)
    api = HfApi(library_name="sslkit", library_version=__version__)
    try:
        # None rather than False, so that the settings of an organisation decide.
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        kept = [CARD] if api.file_exists(url.repo_id, CARD) else None
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, ignore_patterns=kept, commit_message="Upload a backbone by sslkit"
        )
    # Any error, since the Hub's client raises those of its network library too; each has the same way out.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SSLKitError(
            f"{folder} is written but not pushed to {repository}: {reason}. Log in with `hf auth login`, or set "
            f"HF_TOKEN; then `hf upload {repository} {folder}` pushes it."
        ) from error
    return str(url)
