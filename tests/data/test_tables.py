"""Images of tables: parquet, arrow and saved datasets."""

import os

import datasets
import pytest
import torch
from pictures import labelled, parquet, picture, png, table, values

from sslkit.data import HuggingFaceImages
from sslkit.errors import DataError, UnreadableImage


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


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

    @pytest.mark.parametrize(
        ("labels", "missing"),
        [([-1, -1, 2], 2), ([0, None, 2], 1), (["a", None, None], 2)],
        ids=["-1", "none", "words"],
    )
    def test_missing_labels_are_no_labels_and_said(self, tmp_path, labels, missing):
        table(0, 3, label=labels).save_to_disk(tmp_path / "t")
        source = HuggingFaceImages(str(tmp_path / "t"))
        assert source.labels is None
        assert f"no labels: {missing} of 3 rows have none in the column 'label'" in source.summary()

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"kind": ["a", "b"] * 3, "id": range(6), "group": [0, 1, 1] * 2}, "label_column may be 'kind' or 'group'"),
            ({"id": range(6)}, "no column of labels among 'image', 'id'"),
            ({"label": [0.0, 1.0] * 3}, "the column 'label' is float64; labels are whole numbers or words"),
        ],
    )
    def test_columns_that_may_hold_labels_are_named(self, tmp_path, columns, reason):
        table(0, 6, **columns).save_to_disk(tmp_path / "t")
        assert reason in HuggingFaceImages(str(tmp_path / "t")).summary()

    def test_files_are_read_below_the_folder_of_the_table_alone(self, tmp_path):
        import pyarrow
        import pyarrow.parquet

        (tmp_path / "t/x").mkdir(parents=True)
        for name in ("secret.png", "t/inside.png", "t/x/deep.png"):
            (tmp_path / name).write_bytes(png(9))
        os.mkfifo(tmp_path / "t/pipe.png")
        (tmp_path / "t/zero.png").symlink_to("/dev/zero")
        inside = ["inside.png", str(tmp_path / "t/x/deep.png")]
        outside = ["../secret.png", str(tmp_path / "secret.png"), "/etc/passwd", "x/../../secret.png"]
        rows = [{"bytes": None, "path": path} for path in [*inside, *outside, "pipe.png", "zero.png"]]
        pyarrow.parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "t/t.parquet")
        again = HuggingFaceImages(str(tmp_path / "t/../t/t.parquet"))
        assert int(again.read(1).image[0, 0, 0]) == 9
        source = HuggingFaceImages(str(tmp_path / "t/t.parquet"))
        assert [int(source.read(i).image[0, 0, 0]) for i in range(2)] == [9, 9]
        for i in range(2, 6):
            with pytest.raises(UnreadableImage, match=rf"lies outside of {tmp_path}/t, from where alone"):
                source.read(i)
        for i in (6, 7):
            with pytest.raises(UnreadableImage, match="no regular file"):
                source.read(i)

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
