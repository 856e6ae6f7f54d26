"""Tables that describe the image files beside them."""

import os
from pathlib import Path

import datasets
import pytest
from pictures import fill, values

from sslkit.data import HuggingFaceImages
from sslkit.data.metadata import read_metadata
from sslkit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def described(root, names, rows=None, columns="file_name,label"):
    """Write images, and a metadata.csv with a row for each, or for those of ``rows``."""
    fill(root, *names)
    lines = [f"{name},{name[:1]}" for name in (names if rows is None else rows)]
    (root / "metadata.csv").write_text("\n".join([columns, *lines]) + "\n")
    return root


def test_names_of_splits_within_file_names_decide_nothing(tmp_path):
    names = [f"{'abc'[i % 3]}_{['train', 'test', 'x'][i // 10]}_{i}.png" for i in range(30)]
    source = HuggingFaceImages(str(described(tmp_path, names)))
    assert (len(source), source.class_names, source.labels[:4].tolist()) == (30, ["a", "b", "c"], [0, 1, 2, 0])


def test_folders_of_splits_are_splits(tmp_path):
    described(tmp_path / "train", ["b1.png", "a1.png"])
    described(tmp_path / "test", ["a2.png"])
    assert HuggingFaceImages(str(tmp_path)).labels.tolist() == [1, 0]
    test = HuggingFaceImages(str(tmp_path), split="test")
    assert (test.labels.tolist(), test.class_names) == ([0], ["a", "b"])
    assert values(HuggingFaceImages(str(tmp_path), split="all")) == [0, 0, 1]


def test_images_without_a_row_are_not_dropped_in_silence(tmp_path):
    names = [f"a{i:03}.png" for i in range(100)]
    described(tmp_path / "most", names, rows=names[:99])
    source = HuggingFaceImages(str(tmp_path / "most"))
    assert len(source) == 99
    assert "left out: 1 of 100 images have no row in the metadata (a099.png)" in source.summary()
    described(tmp_path / "few", names, rows=names[:10])
    with pytest.raises(DataError, match=r"90 of 100 images have no row in the metadata .*exclude: \[") as caught:
        HuggingFaceImages(str(tmp_path / "few"))
    assert "the table itself as path" in str(caught.value)
    assert len(HuggingFaceImages(str(tmp_path / "few"), exclude=["metadata.csv"])) == 100
    assert len(HuggingFaceImages(str(tmp_path / "few/metadata.csv"))) == 10


def test_rows_without_an_image_are_not_dropped_in_silence(tmp_path):
    described(tmp_path / "empty", ["a.png"], rows=["a.png", ""] * 2)
    with pytest.raises(DataError, match=r"2 of 4 rows of metadata name images that are not there"):
        HuggingFaceImages(str(tmp_path / "empty"))
    described(tmp_path / "wrong", ["a.png"], rows=["a.png", "b.png"])
    with pytest.raises(DataError, match=r"1 of 2 rows of metadata name images that are not there \(b.png\)"):
        HuggingFaceImages(str(tmp_path / "wrong"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name,size\nx,3\n", "no column file_name, only name, size"),
        (b"file_name;label\na.png;x\n", "no column file_name, only file_name;label"),
        (b"", "No columns to parse from file"),
        (b"\xff\xfe\x00caf\xe9", "codec can't decode"),
    ],
)
def test_a_table_of_something_else_is_not_read_and_said(tmp_path, content, reason):
    fill(tmp_path, "x/1.png", "y/2.png")
    (tmp_path / "metadata.csv").write_bytes(content)
    source = HuggingFaceImages(str(tmp_path))
    assert (len(source), source.class_names) == (2, ["x", "y"])
    assert "not read: metadata.csv (" in source.summary()
    assert reason in source.summary()


def test_class_folders_give_the_labels_that_the_table_does_not(tmp_path):
    described(tmp_path, ["x/1.png", "y/2.png"], columns="file_name,caption")
    source = HuggingFaceImages(str(tmp_path))
    assert (source.class_names, source.labels.tolist()) == (["x", "y"], [0, 1])


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "x/../../secret.png"])
def test_files_outside_of_the_folder_are_refused(tmp_path, name):
    described(tmp_path / "data", ["a.png"], rows=[name])
    fill(tmp_path, "secret.png")
    with pytest.raises(DataError, match=r"metadata.csv: '.*' lies outside of the folder"):
        HuggingFaceImages(str(tmp_path / "data"))


def test_columns_of_mixed_kinds_are_one_message(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "x": 1}\n{"file_name": "b.png", "x": [2]}\n')
    with pytest.raises(DataError, match="cannot open the data set"):
        HuggingFaceImages(str(tmp_path))


def test_the_folder_of_a_table_may_have_any_bytes(tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    described(root, ["a.png", "b.png"])
    source = HuggingFaceImages(str(root))
    assert (values(source), source.class_names) == ([0, 1], ["a", "b"])


def test_names_of_digits_stay_names_and_masks_are_columns(tmp_path):
    fill(tmp_path, "a.png", "b.png")
    (tmp_path / "001").write_bytes((tmp_path / "b.png").read_bytes())
    (tmp_path / "metadata.csv").write_text("file_name,mask_file_name\n001,a.png\nb.png,a.png\n")
    metadata, unread = read_metadata(tmp_path, ["metadata.csv"])
    assert (metadata.frame["image"].tolist(), metadata.image_columns, unread) == (
        ["001", "b.png"],
        ["image", "mask"],
        {},
    )
    source = HuggingFaceImages(str(tmp_path), mask_column="mask")
    assert (values(source), source.read(0).mask.unique().tolist()) == ([1, 1], [0])


def test_a_table_as_path_that_names_no_files_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\na.png,3\n")
    with pytest.raises(DataError, match=r"labels.csv cannot be read as a table of image files: no column file_name"):
        HuggingFaceImages(str(tmp_path / "labels.csv"))
