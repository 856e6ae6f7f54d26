"""What a path is taken for, and what is said of what is left out."""

import os
import tarfile
import zipfile

import datasets
import pytest
from pictures import fill, labelled, values

from sslkit.data import HuggingFaceImages
from sslkit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def classes(root, count=12):
    return fill(root, *[f"{'ab'[i % 2]}/{i:03}.png" for i in range(count)])


@pytest.mark.parametrize("name", ["X_metadata.csv", "losses.parquet", "backup.tar", "cache.arrow", "train.csv"])
def test_a_stray_file_beside_images_is_only_mentioned(tmp_path, name):
    (classes(tmp_path) / name).write_bytes(b"a,b\n1,2\n")
    source = HuggingFaceImages(str(tmp_path))
    assert (len(source), source.class_names) == (12, ["a", "b"])
    mentioned = f"not read: {name}"
    assert (mentioned in source.summary()) == name.endswith((".parquet", ".tar", ".arrow"))


def test_images_both_as_files_and_in_tables_need_a_word(tmp_path):
    classes(tmp_path)
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(tmp_path / "a", "a")
    with pytest.raises(
        DataError, match=r"images as files, 12 .*, and in tables, 6 \(all.tar\)\. .*exclude: "
    ) as caught:
        HuggingFaceImages(str(tmp_path))
    assert f"path: {tmp_path}/all.tar" in str(caught.value)
    assert len(HuggingFaceImages(str(tmp_path), exclude=["*.tar"])) == 12


def test_other_files_are_counted_by_suffix(tmp_path):
    for name in ("a/x.xml", "a/y.xml", "b/1.jpg_large", "b/img"):
        (classes(tmp_path) / name).write_text("")
    assert HuggingFaceImages(str(tmp_path)).summary().endswith("other files: 2 .xml, 1 .jpg_large, 1 without a suffix")


def test_a_picture_beside_large_tables_is_only_mentioned(tmp_path):
    fill(tmp_path, "banner.png")
    labelled(0, 100).to_parquet(tmp_path / "train.parquet")
    source = HuggingFaceImages(str(tmp_path))
    assert len(source) == 100
    assert "left out: 1 of 101 images are files beside the tables (banner.png)" in source.summary()
    labelled(0, 3).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"as files, 1 \(banner.png\), and in tables, 3"):
        HuggingFaceImages(str(tmp_path))


@pytest.mark.parametrize("name", ["x.heic", "x.svg"])
def test_formats_that_are_not_read_are_not_dropped_in_silence(tmp_path, name):
    (classes(tmp_path) / "a" / name).write_bytes(b"?")
    with pytest.raises(DataError, match=r"1 of 13 images have formats that are not read \(a/x\..*exclude: "):
        HuggingFaceImages(str(tmp_path))
    assert len(HuggingFaceImages(str(tmp_path), exclude=[f"*{name[1:]}"])) == 12
    classes(tmp_path, 100)
    assert (
        f"left out: 1 of 101 images have formats that are not read (a/{name})"
        in HuggingFaceImages(str(tmp_path)).summary()
    )


def test_pipes_devices_and_broken_links_are_not_opened_nor_dropped_in_silence(tmp_path):
    os.mkfifo(classes(tmp_path) / "a/pipe.jpg")
    (tmp_path / "a/zero.png").symlink_to("/dev/zero")
    (tmp_path / "c").symlink_to(tmp_path / "unmounted")
    with pytest.raises(
        DataError, match=r"3 of 15 entries are broken links, pipes or devices \(a/pipe.jpg, a/zero.png, c"
    ):
        HuggingFaceImages(str(tmp_path))


def test_files_that_are_no_tables_say_what_to_give(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.png", b"?")
    fill(tmp_path, "a.png")
    (tmp_path / "notes.txt").write_text("")
    os.mkfifo(tmp_path / "pipe.parquet")
    for name, message in [
        ("x.zip", "x.zip is an archive: unpack it, and give the folder"),
        ("a.png", rf"a.png is one image: give the folder, {tmp_path}"),
        ("notes.txt", r"notes.txt is no table of images\. Images are given as a folder, a table \(.parquet"),
        ("pipe.parquet", "no regular file"),
    ]:
        with pytest.raises(DataError, match=message):
            HuggingFaceImages(str(tmp_path / name))
    with pytest.raises(DataError, match=r"exclude: .*a.png is no folder"):
        HuggingFaceImages(str(tmp_path / "a.png"), exclude=["x"])


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    for name in ("a.zip", "b.zip", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"no images under .*; it holds 2 .zip, 1 .txt. Unpack the archives"):
        HuggingFaceImages(str(tmp_path))
    (tmp_path / "d.heic").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 1 images have formats that are not read"):
        HuggingFaceImages(str(tmp_path))


@pytest.mark.parametrize(("name", "content"), [("state.json", "{}"), ("dataset_dict.json", "[1"), ("state.json", "[]")])
def test_a_file_called_as_those_of_saved_data_sets_decides_nothing(tmp_path, name, content):
    (classes(tmp_path) / name).write_text(content)
    assert len(HuggingFaceImages(str(tmp_path))) == 12


def test_suffixes_of_tables_are_read_in_capitals(tmp_path):
    labelled(0, 3).to_parquet(tmp_path / "T.PARQUET")
    assert values(HuggingFaceImages(str(tmp_path / "T.PARQUET"))) == [0, 1, 2]
    assert values(HuggingFaceImages(str(tmp_path))) == [0, 1, 2]


def test_image_files_beside_a_saved_data_set_need_a_word(tmp_path):
    labelled(0, 3).save_to_disk(tmp_path)
    assert len(HuggingFaceImages(str(tmp_path))) == 3
    fill(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"1 of 4 images are files beside the tables \(a.png\)"):
        HuggingFaceImages(str(tmp_path))
    assert len(HuggingFaceImages(str(tmp_path), exclude=["a.png"])) == 3
