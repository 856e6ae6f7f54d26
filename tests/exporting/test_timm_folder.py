"""timm loads an exported folder as the run had it."""

import pytest
import timm
import torch
from exports import CASES, CHANNELS_8, as_a_user, far, images_of
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from sslkit.backbones.loading import load_model
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.backbones.timm_models import images_for_timm
from sslkit.errors import SSLKitError
from sslkit.exporting.export import TARGETS, Target, export
from sslkit.types import Preprocessing
from sslkit.views.evaluation import EvaluationView


def test_img_size_travels(make_run):
    arguments, preprocessing = CASES["vit 32/4"]
    folder = export(make_run(preprocessing, teacher=TimmBackbone(**arguments))).folder
    assert as_a_user(folder).patch_embed.img_size == (32, 32)
    assert as_a_user(folder).patch_embed.patch_size == (4, 4)


@pytest.mark.parametrize(("size", "resize"), [(32, 37), (44, 69), (64, 64)])
def test_timm_prepares_pictures_as_the_run_did(size, resize, make_run):
    preprocessing = Preprocessing(3, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3], None, size, resize)
    folder = export(make_run(preprocessing, teacher=TimmBackbone("resnet18", model_args=CHANNELS_8))).folder
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(as_a_user(folder)))
    picture = Image.effect_noise((150, 100), 80).convert("RGB").rotate(20)
    ours = EvaluationView(size, resize, 3, preprocessing.mean, preprocessing.std)(pil_to_tensor(picture))
    # Pillow and torch resize bytes alike but for the last bit.
    torch.testing.assert_close(transform(picture), ours, atol=2 / 255 / 0.2, rtol=0)


def test_every_size_keeps_its_resize_in_timms_words():
    for size in range(1, 300, 7):
        for resize in range(size, 2 * size + 3):
            crop_pct = images_for_timm(Preprocessing(3, (0,), (1,), None, size, resize))["crop_pct"]
            assert int(size / crop_pct) == resize  # as timm computes it
            assert crop_pct == pytest.approx(size / resize, rel=1e-12)


def test_what_timm_cannot_load_back_is_one_message(make_run, tmp_path, monkeypatch):
    write = TARGETS["timm"].write

    def other_architecture(source, folder):
        write(source, folder)
        text = (folder / "config.json").read_text().replace('"depth": 1', '"depth": 2')
        (folder / "config.json").write_text(text)

    monkeypatch.setitem(TARGETS, "timm", Target(other_architecture, TARGETS["timm"].read))
    with pytest.raises(SSLKitError, match=r"timm cannot load this backbone back: .*Missing key") as error:
        export(make_run())
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


DINO = dict(name="test_vit", positions="dino", model_args={"depth": 2, "reg_tokens": 1})


@pytest.mark.parametrize(("size", "stored"), [(160, 160), (96, 160), (96, 64), (208, 160)])
def test_timm_gives_dinos_positions_at_the_runs_size(size, stored, make_run):
    preprocessing = Preprocessing(3, [0.5] * 3, [0.25] * 3, None, size, size)
    arguments = DINO | {"model_args": DINO["model_args"] | {"img_size": stored}}
    run = make_run(preprocessing, teacher=TimmBackbone(**arguments))
    done = export(run)
    model, seen, ours = as_a_user(done.folder), images_of(preprocessing), load_model(str(run)).backbone
    again = load_model(str(done.folder)).backbone
    assert done.difference == 0
    assert (again.positions, model.patch_embed.img_size) == ("dino", (size, size))
    with torch.no_grad():
        assert torch.equal(model(seen), ours(seen).cls)
        assert torch.equal(again(seen).cls, ours(seen).cls)
        # Were they stored as the run has them, timm would resample them in its own way.
        theirs = as_a_user(run / "teacher")
        assert torch.equal(theirs(seen), ours(seen).cls) == (size == stored)
        other = torch.randn(3, 3, 32, 32)
        assert far(model(other), again(other).cls) > 1e-3
