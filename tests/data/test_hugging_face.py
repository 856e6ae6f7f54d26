import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from sslkit.data import HuggingFaceImages
from sslkit.errors import DataError, UnreadableImage

SHARED = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def picture(value: int, mode: str = "RGB", size: tuple[int, int] = (6, 5)) -> Image.Image:
    return Image.new("L", size, value).convert(mode)


def png(value: int, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    picture(value, mode).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, *names: str) -> Path:
    """Write pictures whose grey value is their number."""
    for value, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(value).save(root / name)
    return root


def values(source: HuggingFaceImages) -> list[int]:
    return [int(source.read(i).image[0, 0, 0]) for i in range(len(source))]


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


class TestIdentity:
    def test_keys_and_fingerprint_stay_when_the_folder_moves(self, tmp_path):
        before = HuggingFaceImages(str(fill(tmp_path / "here", "cat/1.png", "dog/2.png")))
        keys, fingerprint = before.keys.tolist(), before.fingerprint()
        (tmp_path / "here").rename(tmp_path / "there")
        after = HuggingFaceImages(str(tmp_path / "there"))
        assert after.keys.tolist() == keys
        assert after.fingerprint() == fingerprint
        assert after.keys.dtype == torch.int64
        assert keys[0] == 904424096894533348

    def test_the_fingerprint_sees_names_labels_pixels_channels_and_subset(self, tmp_path):
        def written(name, *files):
            return HuggingFaceImages(str(fill(tmp_path / name, *files)))

        sources = [written("a", "x/1.png", "y/2.png"), written("b", "x/2.png", "y/1.png"), written("c", "1.png")]
        picture(99).save(fill(tmp_path / "d", "x/1.png", "y/2.png") / "y/2.png")
        sources += [HuggingFaceImages(str(tmp_path / "d")), HuggingFaceImages(str(tmp_path / "a"), channels=1)]
        sources += [HuggingFaceImages(str(tmp_path / "a"), max_images=1)]
        assert len({source.fingerprint() for source in sources}) == len(sources)

    def test_subsets_are_nested_and_keep_their_keys(self, tmp_path):
        fill(tmp_path, *[f"{'xyz'[i % 3]}/{i:02}.png" for i in range(30)])
        whole = HuggingFaceImages(str(tmp_path))
        pairs = dict(zip(whole.keys.tolist(), whole.labels.tolist(), strict=True))
        previous: set[int] = set()
        for n in (5, 12, 30, 100):
            part = HuggingFaceImages(str(tmp_path), max_images=n)
            assert len(part) == min(n, 30)
            assert {key: pairs[key] for key in part.keys.tolist()} == dict(
                zip(part.keys.tolist(), part.labels.tolist(), strict=True)
            )
            assert previous <= set(part.keys.tolist())
            previous = set(part.keys.tolist())
        assert len(set(HuggingFaceImages(str(tmp_path), max_images=12).labels.tolist())) == 3
        with pytest.raises(DataError, match="max_images must be at least 1"):
            HuggingFaceImages(str(tmp_path), max_images=0)

    def test_sources_travel_to_workers(self, tmp_path):
        folder = HuggingFaceImages(str(fill(tmp_path / "f", "a/1.png", "b/2.png")))
        table = HuggingFaceImages(str(parquet(tmp_path / "t", train=3)))
        for source in (folder, table):
            before = len(pickle.dumps(source))
            image = source.read(1).image
            copy = pickle.loads(pickle.dumps(source))
            assert torch.equal(copy.read(1).image, image)
            assert len(pickle.dumps(source)) == before  # images are not carried along
            assert copy.fingerprint() == source.fingerprint()

    def test_small_images_are_kept_and_large_ones_are_not(self, tmp_path, monkeypatch):
        fill(tmp_path, "a.png", "b.png")
        small = HuggingFaceImages(str(tmp_path))
        assert small.in_memory
        assert small.read(1).image is small.read(1).image
        monkeypatch.setattr("sslkit.data.hugging_face.SMALL", 100)
        large = HuggingFaceImages(str(tmp_path))
        assert not large.in_memory
        assert large.read(1).image is not large.read(1).image
        assert HuggingFaceImages(str(tmp_path), in_memory=True).in_memory
        assert not HuggingFaceImages(str(tmp_path / "..") + "/" + tmp_path.name, in_memory=False).in_memory


def table(start: int, size: int, **columns) -> datasets.Dataset:
    rows = {"image": [{"bytes": png(start + i), "path": None} for i in range(size)]}
    features = datasets.Features({"image": datasets.Image()})
    return datasets.Dataset.from_dict(rows | columns, features=features if not columns else None)


def labelled(start: int, size: int) -> datasets.Dataset:
    features = {"image": datasets.Image(), "digit": datasets.ClassLabel(names=["even", "odd"])}
    rows = {"image": [{"bytes": png(start + i), "path": None} for i in range(size)], "digit": [0, 1] * (size // 2)}
    rows["digit"] += [0] * (size - len(rows["digit"]))
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def parquet(folder: Path, **sizes: int) -> Path:
    folder.mkdir(parents=True)
    for start, (split, size) in enumerate(sizes.items()):
        labelled(100 * start, size).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_a_missing_folder_names_those_like_it_and_no_others(tmp_path):
    for name in ("photos", "photos2", "letters", *(f"other{i}" for i in range(30))):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"no 'fotos' in .*\. Did you mean 'photos' or 'photos2'\?") as caught:
        HuggingFaceImages(str(tmp_path / "fotos"))
    assert "other" not in str(caught.value)
    with pytest.raises(DataError, match=r"no 'xyz' in [^ ]*\. A data set"):
        HuggingFaceImages(str(tmp_path / "xyz"))


class TestTables:
    def test_a_folder_of_parquet(self, tmp_path):
        parquet(tmp_path / "t", train=5, test=3)
        source = HuggingFaceImages(str(tmp_path / "t"))
        assert values(source) == [0, 1, 2, 3, 4]
        assert source.labels.tolist() == [0, 1, 0, 1, 0]
        assert source.class_names == ["even", "odd"]
        assert values(HuggingFaceImages(str(tmp_path / "t"), split="test")) == [100, 101, 102]
        with pytest.raises(DataError, match=r"no split 'tset'. Did you mean 'test'\? Choices: test, train"):
            HuggingFaceImages(str(tmp_path / "t"), split="tset")
        first, second = (HuggingFaceImages(str(tmp_path / "t"), split=split) for split in ("train", "test"))
        assert not set(first.keys.tolist()) & set(second.keys.tolist())

    def test_a_single_file_is_whole_whatever_it_is_called(self, tmp_path):
        file = parquet(tmp_path / "t", test=3) / "test-00000-of-00001.parquet"
        for split in ("train", "test"):
            assert values(HuggingFaceImages(str(file), split=split)) == [0, 1, 2]
        with pytest.raises(DataError, match="no split 'validation'"):
            HuggingFaceImages(str(file), split="validation")

    def test_keys_and_fingerprint_stay_when_the_table_moves(self, tmp_path):
        before = HuggingFaceImages(str(parquet(tmp_path / "t", train=4)))
        (tmp_path / "t").rename(tmp_path / "u")
        after = HuggingFaceImages(str(tmp_path / "u"))
        assert (after.keys.tolist(), after.fingerprint()) == (before.keys.tolist(), before.fingerprint())

    def test_saved_to_disk(self, tmp_path):
        labelled(0, 4).save_to_disk(tmp_path / "one")
        assert values(HuggingFaceImages(str(tmp_path / "one"))) == [0, 1, 2, 3]
        both = datasets.DatasetDict(train=labelled(0, 2), test=labelled(50, 2))
        both.save_to_disk(tmp_path / "two")
        source = HuggingFaceImages(str(tmp_path / "two"), split="test", max_images=1)
        assert values(source) in ([50], [51])
        assert source.labels.tolist() == [values(source)[0] - 50]

        part = datasets.Dataset.from_dict({"image": [picture(3)]}, split="test")
        part.save_to_disk(tmp_path / "part")
        for split in ("train", "test"):
            assert values(HuggingFaceImages(str(tmp_path / "part"), split=split)) == [3]

    def test_parquet_without_the_librarys_metadata(self, tmp_path):
        import pyarrow
        import pyarrow.parquet

        rows = {"picture": [{"bytes": png(i), "path": f"{i}.png"} for i in range(3)], "label": ["b", "a", "b"]}
        pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "x.parquet")
        source = HuggingFaceImages(str(tmp_path / "x.parquet"))
        assert values(source) == [0, 1, 2]
        assert source.labels.tolist() == [1, 0, 1]
        assert source.class_names == ["a", "b"]
        pyarrow.parquet.write_table(pyarrow.table({"raw": [png(4)]}), tmp_path / "y.parquet")
        with pytest.raises(DataError, match=r"no column of images to be found: its columns are raw \(binary\)"):
            HuggingFaceImages(str(tmp_path / "y.parquet"))
        assert values(HuggingFaceImages(str(tmp_path / "y.parquet"), image_column="raw")) == [4]

    def test_words_are_numbered_alike_in_every_split(self, tmp_path):
        splits = {"train": table(0, 3, label=["c", "a", "b"]), "test": table(0, 2, label=["b", "c"])}
        datasets.DatasetDict(splits).save_to_disk(tmp_path / "t")
        assert HuggingFaceImages(str(tmp_path / "t")).labels.tolist() == [2, 0, 1]
        assert HuggingFaceImages(str(tmp_path / "t"), split="test").labels.tolist() == [1, 2]

    @pytest.mark.parametrize("labels", [[-1, -1], [0, None]])
    def test_missing_labels_are_no_labels(self, tmp_path, labels):
        table(0, 2, label=labels).save_to_disk(tmp_path / "t")
        assert HuggingFaceImages(str(tmp_path / "t")).labels is None

    def test_columns_are_named(self, tmp_path):
        table(0, 2, label=[0.5, 1.5], kind=[3, 4]).save_to_disk(tmp_path / "t")
        assert HuggingFaceImages(str(tmp_path / "t")).labels is None
        assert HuggingFaceImages(str(tmp_path / "t"), label_column="kind").labels.tolist() == [3, 4]
        for arguments, message in [
            ({"image_column": "imgae"}, r"no column 'imgae'. Did you mean 'image'\? Choices: image, kind, label"),
            ({"image_column": "kind"}, r"column 'kind' holds no images: its columns are image"),
            ({"label_column": "kid"}, "Did you mean 'kind'"),
            ({"label_column": "label"}, "whole numbers or words"),
            ({"mask_column": "mask"}, "no column 'mask'"),
        ]:
            with pytest.raises(DataError, match=message):
                HuggingFaceImages(str(tmp_path / "t"), **arguments)

    def test_masks_come_with_their_images(self, tmp_path):
        rows = {"image": [picture(9)] * 2, "mask": [picture(1, "L"), picture(1, "L", size=(4, 4))]}
        features = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
        datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "t")
        assert HuggingFaceImages(str(tmp_path / "t")).read(0).mask is None
        source = HuggingFaceImages(str(tmp_path / "t"), mask_column="mask")
        assert torch.equal(source.read(0).mask, torch.ones(5, 6, dtype=torch.uint8))
        with pytest.raises(UnreadableImage, match=r"row 1 image: image \(5, 6\), but mask \(4, 4\)"):
            source.read(1)

    def test_damaged_rows_are_named(self, tmp_path):
        import pyarrow
        import pyarrow.parquet

        rows = [{"bytes": data, "path": "x.png"} for data in (png(7)[:45], None)] + [None]
        pyarrow.parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "t.parquet")
        source = HuggingFaceImages(str(tmp_path / "t.parquet"))
        for row, reason in enumerate([r"train row 0 image \(x.png\): ", "row 1 .*No such file", "row 2 .*empty"]):
            with pytest.raises(UnreadableImage, match=reason):
                source.read(row)

    def test_a_damaged_table_is_one_message(self, tmp_path):
        (tmp_path / "x.parquet").write_bytes(b"PAR1 no table")
        with pytest.raises(DataError, match="cannot open the data set") as caught:
            HuggingFaceImages(str(tmp_path / "x.parquet"))
        assert "\n" not in str(caught.value)


class TestHub:
    def test_without_a_network_one_message(self, monkeypatch):
        import huggingface_hub

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(DataError, match=r"cannot open the data set 'nobody/nothing': .+") as caught:
            HuggingFaceImages("nobody/nothing")
        assert "\n" not in str(caught.value)

    def test_the_name_configuration_and_revision_reach_the_hub(self, monkeypatch):
        asked = []

        def load_dataset(path, **options):
            asked.append((path, options))
            return datasets.DatasetDict(train=labelled(0, 2), validation=labelled(7, 2))

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        source = HuggingFaceImages("owner/name", split="val", config="small", revision="v1")
        assert asked == [("owner/name", {"name": "small", "revision": "v1"})]
        assert values(source) == [7, 8]

    def test_a_word_is_a_folder_that_does_not_exist(self, tmp_path, monkeypatch):
        fill(tmp_path / "cifar10", "a.png")
        monkeypatch.chdir(tmp_path)
        with pytest.raises(DataError, match=r"Did you mean 'cifar10'\?.*Hub is named owner/name"):
            HuggingFaceImages("cifra10")


def test_the_library_is_imported_when_it_is_needed():
    code = "import sys, sslkit.data; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
class TestRealImages:
    def test_cifar10(self):
        source = HuggingFaceImages(str(SHARED / "cifar10"), split="test")
        assert len(source) == 10_000
        assert source.read(9999).image.shape == (3, 32, 32)
        assert torch.bincount(source.labels).tolist() == [1000] * 10

    def test_masks_of_frames(self):
        source = HuggingFaceImages(str(SHARED / "davis2016_val10"), split="validation", mask_column="mask")
        sample = source.read(100)
        assert sample.mask.shape == sample.image.shape[1:]
        assert sample.mask.unique().tolist() == [0, 255]
