"""What lies below a folder, and how much of it may be left out."""

import os
from pathlib import Path

import pytest
from pictures import fill

from sslkit.data.walk import note_left_out, read_regular, walk
from sslkit.errors import DataError, UnreadableImage


def test_files_are_told_apart_by_what_they_are(tmp_path):
    fill(tmp_path, "a.png", "x/B.JPG", ".hidden.png", "._a.png")
    for name in ("t.parquet", "U.TAR", "metadata.csv", "X_metadata.csv", "notes.txt", "LICENSE", "c.heic", "d.SVG"):
        (tmp_path / name).write_text("x")
    for folder in (".cache", "__MACOSX"):
        fill(tmp_path / folder, "e.png")
    found = walk(tmp_path)
    assert (found.images, found.tables, found.metadata) == (
        ["a.png", "x/B.JPG"],
        ["U.TAR", "t.parquet"],
        ["metadata.csv"],
    )
    assert (found.unread, found.hidden, found.broken) == (["c.heic", "d.SVG"], [".cache", ".hidden.png"], [])
    assert found.others == {".csv": 1, ".txt": 1, "without a suffix": 1}


def test_links_are_followed_but_not_in_circles(tmp_path):
    fill(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    (tmp_path / "b/up").symlink_to(tmp_path)
    (tmp_path / "a/other").symlink_to(tmp_path / "b")
    assert walk(tmp_path).images == ["a/1.png", "a/other/2.png", "b/2.png", "c/1.png", "c/other/2.png"]


def test_what_is_no_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "gone").symlink_to(tmp_path / "missing")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert walk(tmp_path).broken == ["endless.png", "gone", "pipe.jpg", "self"]
    for name in ("pipe.jpg", "endless.png"):
        with pytest.raises(UnreadableImage, match="no regular file"):
            read_regular(tmp_path / name, name)
    with pytest.raises(UnreadableImage, match="gone: No such file"):
        read_regular(tmp_path / "gone", "gone")


def test_patterns_leave_files_and_folders_out(tmp_path):
    fill(tmp_path, "train/1.png", "docs/2.png", "docs/deep/3.png", "logo.png", "train/logo.png")
    assert walk(tmp_path, ["docs", "logo.png"]).images == ["train/1.png"]
    assert walk(tmp_path, ["deep/", "*/logo.png"]).images == ["docs/2.png", "logo.png", "train/1.png"]
    with pytest.raises(DataError, match=r"exclude: no file or folder of .* matches 'dosc'"):
        walk(tmp_path, ["docs", "dosc"])


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    fill(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"/b cannot be listed: Permission denied"):
        walk(tmp_path)


def test_up_to_one_percent_is_a_note_and_more_is_an_error():
    assert note_left_out([], 5, "here", "are odd", "Do this.") == ""
    assert note_left_out(["a"], 100, "here", "are odd", "Do this.") == "left out: 1 of 100 are odd (a)"
    with pytest.raises(DataError, match=r"^here: 4 of 100 are odd \(a, b, c, d\)\. Do this\.$"):
        note_left_out(["a", "b", "c", "d"], 100, "here", "are odd", "Do this.")
