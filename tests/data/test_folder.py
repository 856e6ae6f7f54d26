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

    @pytest.mark.parametrize("others", [["cat", "dog"], ["car", "plane", "ship", "bus", "bike"]])
    def test_a_class_may_be_called_train_among_others(self, tmp_path, others):
        names = sorted([*others, "train"])
        source = HuggingFaceImages(str(fill(tmp_path, *[f"{name}/{i}.png" for name in names for i in range(3)])))
        assert (len(source), source.class_names) == (3 * len(names), names)
        assert "; folder train read as one of the others, not as a split" in source.summary()

    @pytest.mark.parametrize(
        "names",
        [
            ["train/1.png", "logo.png", "docs/2.png"],
            ["train/a/1.png", "train/b/1.png", "test/a/2.png", "extra/a/3.png"],
            ["train/1.png", "car/2.png"],
        ],
    )
    def test_images_outside_of_the_splits_are_not_dropped_in_silence(self, tmp_path, names):
        fill(tmp_path, *names)
        outside = len([name for name in names if not name.startswith(("train", "test"))])
        with pytest.raises(DataError, match=rf"{outside} of {len(names)} images lie outside of the split folders"):
            HuggingFaceImages(str(tmp_path))
        assert len(HuggingFaceImages(str(tmp_path), split="all")) == len(names)
        exclude = [name for name in ("logo.png", "docs", "extra", "car") if (tmp_path / name).exists()]
        source = HuggingFaceImages(str(tmp_path), exclude=exclude)
        assert source.index.sizes["train"] == len([name for name in names if name.startswith("train")])

    def test_splits_inside_the_only_folder_are_mentioned(self, tmp_path):
        source = HuggingFaceImages(str(fill(tmp_path, "pets/train/a/1.png", "pets/test/a/2.png")))
        assert len(source) == 2
        assert f"; test, train in pets read as plain folders; as splits with path: {tmp_path}/pets" in source.summary()
        assert "plain" not in HuggingFaceImages(str(fill(tmp_path / "x", "train/test/1.png"))).summary()

    def test_a_few_images_outside_of_the_splits_are_mentioned(self, tmp_path):
        fill(tmp_path, *[f"train/{i}.png" for i in range(198)], "docs/a.png", "logo.png")
        source = HuggingFaceImages(str(tmp_path))
        assert len(source) == 198
        assert "left out: 2 of 200 images lie outside of the split folders (docs/a.png, logo.png)" in source.summary()

    def test_links_to_splits_and_classes_are_splits_and_classes(self, tmp_path):
        fill(tmp_path, "train/a/1.png", "train/b/2.png")
        (tmp_path / "val").symlink_to(tmp_path / "train")
        (tmp_path / "train/c").symlink_to(tmp_path / "train/b")
        for split in ("train", "val"):
            assert HuggingFaceImages(str(tmp_path), split=split).class_names == ["a", "b", "c"]
            assert HuggingFaceImages(str(tmp_path), split=split).labels.tolist() == [0, 1, 2]

    def test_a_line_says_what_was_found(self, tmp_path):
        fill(tmp_path, "train/a/1.png", "train/b/1.png", "train/b/2.png", "val/a/1.png")
        found = f"{tmp_path}: 3 images of split 'train', other splits: validation 1; 2 classes"
        assert HuggingFaceImages(str(tmp_path)).summary() == found
        part = HuggingFaceImages(str(tmp_path), split="val", max_images=1).summary()
        assert part == f"{tmp_path}: 1 image of split 'validation', other splits: train 3; 2 classes"
        assert "2 of 3 (max_images) images" in HuggingFaceImages(str(tmp_path), max_images=2).summary()

    @pytest.mark.parametrize(
        ("names", "reason"),
        [
            (["a.png"], "no labels: no class folders"),
            (["x/a.png", "x/b.png"], "no labels: one class folder"),
            (["x/a.png", "y/b.png", "c.png"], r"no labels: 1 of 3 images do not lie in one class folder (c.png)"),
            (["x/a.png", "y/z/b.png", "z/c.png"], r"1 of 3 images do not lie in one class folder (y/z/b.png)"),
        ],
    )
    def test_the_line_says_why_there_are_no_labels(self, tmp_path, names, reason):
        assert reason in HuggingFaceImages(str(fill(tmp_path, *names))).summary()

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

    def test_class_folders_of_any_bytes(self, tmp_path):
        fill(tmp_path, "ä/1.png")
        folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
        Path(folder).mkdir()
        (Path(folder) / "2.png").write_bytes(png(7))
        source = HuggingFaceImages(str(tmp_path))
        assert (source.class_names, source.labels.tolist()) == (["caf\\xe9", "ä"], [0, 1])
        assert len(source.fingerprint()) == 32
        assert source.summary().encode()

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
