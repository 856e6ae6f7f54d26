import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from pictures import fill, labelled, values

from sslkit.data import HuggingFaceImages
from sslkit.errors import DataError, UnreadableImage
from sslkit.recipe import load

SHARED = Path(__file__).parents[2] / "../shared/data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


def test_a_missing_folder_names_those_like_it_and_no_others(tmp_path):
    for name in ("photos", "photos2", "letters", *(f"other{i}" for i in range(30))):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"no 'fotos' in .*\. Did you mean 'photos' or 'photos2'\?") as caught:
        HuggingFaceImages(str(tmp_path / "fotos"))
    assert "other" not in str(caught.value)
    with pytest.raises(DataError, match=r"no 'xyz' in [^ ]*\. A data set"):
        HuggingFaceImages(str(tmp_path / "xyz"))


def test_the_largest_image_is_a_key_of_the_recipe(tmp_path):
    source = HuggingFaceImages(str(fill(tmp_path, "a.png")), max_pixels=29)
    with pytest.raises(UnreadableImage, match=r"a.png: 6 x 5 pixels are more than data.max_pixels, 29"):
        source.read(0)
    words = ["--data", str(tmp_path), "--data.max_pixels"]
    with pytest.raises(DataError, match=r"6 x 5 pixels are more"):
        load("quickstart", [*words, "29"]).build().data.train.read(0)
    assert load("quickstart", [*words, "30"]).build().data.train.read(0).image.shape == (3, 5, 6)


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


def test_a_key_finds_its_file_or_row(tmp_path):
    files = HuggingFaceImages(str(fill(tmp_path / "files", "train/b/2.png", "train/a/1.png", "train/c.png")))
    backwards = files.keys.flip(0).tolist()
    assert files.places([*backwards, 5]) == ["train/c.png", "train/b/2.png", "train/a/1.png", ""]
    datasets.Dataset.from_dict({"image": [{"bytes": b"", "path": None}] * 5}).to_parquet(tmp_path / "five.parquet")
    rows = HuggingFaceImages(str(tmp_path / "five.parquet"), image_column="image", in_memory=False, max_images=3)
    assert rows.places(rows.keys.tolist()) == [f"train row {row}" for row in rows.rows.tolist()]
