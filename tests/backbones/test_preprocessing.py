"""A folder says how its images are prepared, and never what timm knows of other weights."""

import json

import pytest
import timm

from sslkit.backbones.loading import load_model
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

OWN = Preprocessing(3, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0, 9], 48, 54)


def test_a_folder_alone_keeps_the_mean_and_std_that_it_was_saved_with(tmp_path):
    TimmBackbone("test_vit").save(tmp_path, OWN)
    found = load_model(str(tmp_path)).preprocessing
    assert found == Preprocessing(3, tuple(OWN.mean), tuple(OWN.std), None, 48, 55)
    (tmp_path / "data.json").write_text(json.dumps(vars(OWN)))
    assert load_model(str(tmp_path)).preprocessing == OWN


def test_what_a_folder_does_not_say_is_not_taken_from_other_weights_of_its_name(tmp_path):
    backbone = TimmBackbone("test_vit")
    assert tuple(backbone.model.pretrained_cfg["mean"]) == (0.5, 0.5, 0.5)
    backbone.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for absent in ("mean", "std"):
        del config["pretrained_cfg"][absent]
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert load_model(str(tmp_path)).preprocessing == Preprocessing(3, IMAGENET_MEAN, IMAGENET_STD, None, 160, 183)


def test_a_folder_that_timm_wrote_of_other_channels_has_the_default(tmp_path):
    model = timm.create_model("test_vit", num_classes=0)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.3]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_model(str(tmp_path)).preprocessing.mean == IMAGENET_MEAN


def test_raw_pixels_have_the_default(tmp_path):
    RawPixels(in_chans=2).save(tmp_path)
    assert load_model(str(tmp_path)).preprocessing == Preprocessing(2, (0.5, 0.5), (0.25, 0.25))


@pytest.mark.parametrize(
    "damage", [{"mean": 5}, {"input_size": ["big"]}, {"input_size": []}, {"mean": "abc", "std": "abc"}, [1]]
)
def test_a_damaged_record_is_named(damage, tmp_path):
    TimmBackbone("test_vit").save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pretrained_cfg": damage}))
    with pytest.raises(SSLKitError, match=r"config\.json: "):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("channels", 0),
        ("channels", "3"),
        ("size", 0),
        ("resize", 3.5),
        ("mean", [0.1, 0.2]),
        ("mean", ["a", "b", "c"]),
        ("mean", "abc"),
        ("std", [0.1, 0.2, 0]),
        ("std", [0.1, 0.2, float("nan")]),
        ("value_range", [9, 0]),
        ("value_range", [0]),
    ],
)
def test_values_that_no_images_have_are_named(key, value, tmp_path):
    TimmBackbone("test_vit", model_args={"depth": 1}).save(tmp_path)
    (tmp_path / "data.json").write_text(json.dumps({**vars(OWN), key: value}))
    with pytest.raises(SSLKitError, match=rf"data\.json: {key} is "):
        load_model(str(tmp_path))
