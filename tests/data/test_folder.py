"""Images of a folder: classes, splits and what is left out."""

import json
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
from pictures import fill, png, values

from sslkit.data import HuggingFaceImages
from sslkit.errors import DataError, UnreadableImage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


class TestFolders:
    def test_class_folders_give_labels(self, tmp_path):
        source = HuggingFaceImages(str(fill(tmp_path / "pets", "dog/1.png", "cat/2.PNG", "cat/1.bmp")))
        assert values(source) == [2, 1, 0]
        assert source.labels.tolist() == [0, 0, 1]
        assert source.class_names == ["cat", "dog"]
        assert source.name == "pets train"
        sample = source.read(2)
        assert sample.image.shape == (3, 5, 6)
        assert (sample.label, sample.mask, sample.key) == (1, None, int(source.keys[2]))

    @pytest.mark.parametrize(
        "names",
        [
            ["b.png", "a.png"],
            ["cat/1.png", "dog/deep/2.png"],
            ["cat/1.png", "dog/1.png", "loose.png"],
            ["one/1.png", "one/2.png"],
        ],
        ids=["flat", "uneven", "loose", "single"],
    )
    def test_other_folders_give_none(self, tmp_path, names):
        source = HuggingFaceImages(str(fill(tmp_path, *names)))
        assert len(source) == len(names)
        assert source.labels is None
        assert source.class_names is None
        assert source.read(0).label is None

    def test_split_folders_are_splits_with_the_same_classes(self, tmp_path):
        fill(tmp_path, "train/a/1.png", "train/b/1.png", "train/c/1.png", "Val/c/1.png", "Val/b/2.png")
        assert len(HuggingFaceImages(str(tmp_path))) == 3
        for split in ("val", "validation"):
            source = HuggingFaceImages(str(tmp_path), split=split)
            assert values(source) == [4, 3]
            assert source.labels.tolist() == [1, 2]
        with pytest.raises(DataError, match=r"no split 'test'.* Choices: train, validation"):
            HuggingFaceImages(str(tmp_path), split="test")

    def test_a_class_may_be_called_test(self, tmp_path):
        source = HuggingFaceImages(str(fill(tmp_path, "cat/1.png", "test/1.png")))
        assert source.class_names == ["cat", "test"]

    def test_images_outside_of_the_splits_are_mentioned(self, tmp_path, caplog):
        fill(tmp_path, "train/1.png", "logo.png", "docs/2.png")
        assert len(HuggingFaceImages(str(tmp_path))) == 1
        assert "2 images lie outside of its split folders" in caplog.text

    def test_hidden_files_are_passed_over_and_links_followed_once(self, tmp_path):
        fill(tmp_path / "data", "x/1.png", "x/._1.png", ".cache/2.png", "__MACOSX/3.png", "x/notes.txt.png")
        (tmp_path / "data/x/notes.txt").write_text("no image")
        fill(tmp_path / "elsewhere", "9.png")
        (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "data/x/loop").symlink_to(tmp_path / "data")
        assert len(HuggingFaceImages(str(tmp_path / "data"))) == 3

    def test_arrays_of_many_bands(self, tmp_path):
        bands = np.random.default_rng(0).integers(0, 9999, (13, 28, 29)).astype(np.uint16)
        np.save(tmp_path / "a.npy", bands)
        source = HuggingFaceImages(str(tmp_path), channels=13)
        assert np.array_equal(source.read(0).image.numpy(), bands)
        with pytest.raises(UnreadableImage, match=r"a.npy: it has 13 bands, data.channels is 3"):
            HuggingFaceImages(str(tmp_path)).read(0)

    def test_damaged_and_lost_files_are_named(self, tmp_path):
        fill(tmp_path, "a.png", "b.png", "c.png")
        (tmp_path / "a.png").write_bytes(b"")
        source = HuggingFaceImages(str(tmp_path))
        (tmp_path / "b.png").unlink()
        for index, reason in enumerate(["a.png: the file is empty", "b.png: No such file"]):
            with pytest.raises(UnreadableImage, match=reason):
                source.read(index)
        assert source.read(2).image[0, 0, 0] == 2

    def test_names_of_any_bytes(self, tmp_path):
        fill(tmp_path, "föö bar.png")
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")).write_bytes(png(7))
        assert sorted(values(HuggingFaceImages(str(tmp_path)))) == [0, 7]

    def test_metadata_gives_columns(self, tmp_path):
        fill(tmp_path, "a.png", "b.png")
        rows = [{"file_name": "a.png", "label": "x"}, {"file_name": "b.png", "label": "y"}]
        (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
        source = HuggingFaceImages(str(tmp_path))
        assert values(source) == [0, 1]
        assert source.class_names == ["x", "y"]

    def test_mistakes_are_named(self, tmp_path):
        fill(tmp_path / "images", "a.png")
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"no images under .*empty; looked for .jpg .jpeg"):
            HuggingFaceImages(str(tmp_path / "empty"))
        with pytest.raises(DataError, match=r"no 'imagse' in .*Did you mean 'images'"):
            HuggingFaceImages(str(tmp_path / "imagse/train"))
        with pytest.raises(DataError, match=r"has no columns: leave out mask"):
            HuggingFaceImages(str(tmp_path / "images"), mask_column="mask")
