"""Write a folder for the Hugging Face Hub, timm's with a model card, and upload it."""

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
    """Write what timm loads as ``hf-hub:OWNER/NAME`` and the card that the Hub shows.

    Raises:
        NotSupported: timm does not know this backbone.
    """
    timm_folder.write(source, folder)
    (folder / CARD).write_text(model_card(source), encoding="utf-8")


def check_repository(name: str) -> None:
    """Refuse what is no OWNER/NAME before anything is done for it.

    Raises:
        SSLKitError: it is none.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise SSLKitError(f"--push: {error}") from error
    if name.count("/") != 1:
        raise SSLKitError(f"--push takes OWNER/NAME, as in --push my-name/my-model, not {name!r}")


def push(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload a folder to the Hub and return its address; a model card that is there already stays.

    Args:
        folder: what `write` wrote.
        repository: OWNER/NAME; made if there is none.
        private: whether a new repository is seen by its owner alone.

    Raises:
        SSLKitError: the Hub cannot be reached or refuses; the folder stays as it is.
    """
    check_repository(repository)
    api = HfApi(library_name="sslkit", library_version=__version__)
    try:
        # None leaves it to the owner's settings.
        url = api.create_repo(repository, private=private or None, exist_ok=True)
        kept = [CARD] if api.file_exists(url.repo_id, CARD) else None
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, ignore_patterns=kept, commit_message="Upload a backbone by sslkit"
        )
    except Exception as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise SSLKitError(
            f"{folder} is written but not pushed to {repository}: {reason}. Log in with `hf auth login`, or set "
            f"HF_TOKEN; then `hf upload {repository} {folder}` pushes it."
        ) from error
    return str(url)
