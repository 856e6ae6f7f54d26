"""Paths as users write them."""

from pathlib import Path

import pytest

from sslkit.cli.main import main
from sslkit.paths import local_path


def test_home_folders_are_found():
    assert local_path("~/x") == Path.home() / "x"
    assert local_path(Path("~")) == Path.home()
    assert local_path("a/~/b") == Path("a/~/b")
    assert local_path("~no-such-user/x") == Path("~no-such-user/x")


@pytest.mark.parametrize(
    "words",
    [
        ["train", "~no-such-user/x.yaml"],
        ["train", "quickstart", "--data", "~no-such-user/x"],
        ["train", "quickstart", "--method.init_from", "~no-such-user/x.pth"],
        ["train", "quickstart", "--plugin", "~no-such-user/x.py"],
        ["evaluate", "knn", "~no-such-user/x"],
        ["export", "~no-such-user/x"],
        ["doctor", "~no-such-user"],
    ],
)
def test_the_home_of_an_unknown_user_is_one_message(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("sslkit: ")]
    assert len(lines) == 1
    assert "~no-such-user" in lines[0]
    assert [*tmp_path.iterdir()] == []
