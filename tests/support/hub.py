"""A Hugging Face Hub that keeps what is pushed to it."""

from pathlib import Path


def card_of(folder):
    return (folder / "README.md").read_text()


class Hub:
    """HfApi as far as an upload needs it; remembers what it was asked."""

    asked: list
    readme = False
    error = None

    def __init__(self, **named):
        self.asked.append(("api", named["library_name"]))

    def create_repo(self, repo_id, private=None, exist_ok=False):
        if self.error:
            raise self.error
        self.asked.append(("create", repo_id, private, exist_ok))
        return Address(repo_id)

    def file_exists(self, repo_id, filename):
        assert filename == "README.md"
        return self.readme

    def upload_folder(self, repo_id, folder_path, ignore_patterns, commit_message):
        self.asked.append(("upload", repo_id, Path(folder_path), ignore_patterns))


class Address(str):
    @property
    def repo_id(self):
        return str.__str__(self)

    def __str__(self):
        return f"https://huggingface.co/{self.repo_id}"
