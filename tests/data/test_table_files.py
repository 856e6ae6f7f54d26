"""Which table files are read, as which splits."""

import tarfile

import datasets
import pytest
from pictures import fill, labelled, parquet, values

from sslkit.data import HuggingFaceImages
from sslkit.data.table_files import count_images
from sslkit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def write(root, *names):
    """Write tables of two images, numbered on."""
    root.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        labelled(10 * i, 2).to_parquet(root / name)
    return root


def test_a_table_of_no_split_beside_those_of_splits_is_not_dropped_in_silence(tmp_path):
    write(tmp_path, "cats_train.parquet", "dogs.parquet")
    with pytest.raises(DataError, match=r"1 of 2 tables belong to no split, as others do \(dogs.parquet\)"):
        HuggingFaceImages(str(tmp_path))
    assert values(HuggingFaceImages(str(tmp_path), exclude=["dogs*"])) == [0, 1]
    assert values(HuggingFaceImages(str(tmp_path / "dogs.parquet"))) == [10, 11]


def test_files_that_are_no_tables_decide_no_split(tmp_path):
    write(tmp_path, "a.parquet", "b.parquet")
    for name in ("metadata.csv", "test.csv", "train_notes.txt"):
        (tmp_path / name).write_text("x,y\n1,2\n")
    source = HuggingFaceImages(str(tmp_path))
    assert values(source) == [0, 1, 10, 11]
    assert "metadata.csv (no column file_name, only x, y)" in source.summary()


def test_tables_left_out_leave_the_splits_of_the_others(tmp_path):
    write(tmp_path, "train-1.parquet", "train-2.parquet", "val.parquet")
    assert values(HuggingFaceImages(str(tmp_path), exclude=["train-1*"])) == [10, 11]
    assert values(HuggingFaceImages(str(tmp_path), split="val", exclude=["train-1*"])) == [20, 21]


def test_a_table_that_is_a_broken_link_is_not_dropped_in_silence(tmp_path):
    (write(tmp_path, "train-1.parquet") / "train-2.parquet").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"1 of 2 entries are broken links, pipes or devices \(train-2.parquet\)"):
        HuggingFaceImages(str(tmp_path))


def test_tables_of_two_kinds_are_not_mixed(tmp_path):
    write(tmp_path, "a.parquet")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(fill(tmp_path / "elsewhere", "1.png") / "1.png", "1.png")
    with pytest.raises(DataError, match=r"exclude: \['\*.tar'\]|tables belong to no split"):
        HuggingFaceImages(str(tmp_path), exclude=["elsewhere"])
    assert values(HuggingFaceImages(str(tmp_path), exclude=["elsewhere", "*.tar"])) == [0, 1]


def test_the_images_of_a_table_are_counted_without_decoding(tmp_path):
    write(tmp_path, "a.parquet")
    labelled(0, 5).save_to_disk(tmp_path / "saved")
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        archive.add(fill(tmp_path / "x", "1.png", "2.png", "3.png"), "x")
    datasets.Dataset.from_dict({"loss": [0.5, 0.1]}).to_parquet(tmp_path / "losses.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    names = ("a.parquet", arrow, "b.tar", "losses.parquet", "broken.parquet")
    assert [count_images(tmp_path / name) for name in names] == [2, 5, 3, 0, 0]


def test_the_splits_of_a_data_card_are_kept(tmp_path):
    parquet(tmp_path / "t", train=3, other=2)
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: good, path: other-*}\n"
    card += "  - {split: train, path: train-*}\n---\n"
    (tmp_path / "t/README.md").write_text(card)
    assert values(HuggingFaceImages(str(tmp_path / "t"), split="good")) == [100, 101]
