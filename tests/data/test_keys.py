"""Keys and fingerprints do not depend on where images lie."""

import pickle

import datasets
import pytest
import torch
from pictures import fill, parquet, picture

from sslkit.data import HuggingFaceImages
from sslkit.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()


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
