"""The Hub folder: a card that is true and whose code runs, and an upload that keeps what people wrote."""

import json
import re

import pytest
import timm
import torch
from exports import CASES, far, images_of
from hub import Hub, card_of
from huggingface_hub.errors import LocalTokenNotFoundError

from sslkit.backbones.loading import load_model
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError
from sslkit.exporting import hub_folder
from sslkit.exporting.export import export
from sslkit.types import Preprocessing

STATISTICS = Preprocessing(5, [0.1, 0.2, 0.3, 0.4, 0.5], [0.2] * 5, [100, 9000], 32, 36)


def test_the_cards_code_gives_the_features_and_the_hub_name_loads(make_run, monkeypatch):
    run = make_run(STATISTICS, teacher=TimmBackbone("test_vit", in_chans=5))
    folder = export(run, "hf", repository="me/birds").folder
    # The Hub as it is where nothing but this folder is on it.
    monkeypatch.setattr(
        "timm.models._hub.hf_hub_download", lambda repo_id, filename, **_: hub(folder, repo_id, filename)
    )
    card = card_of(folder)
    assert "- pixel values that are 0 and 1: 100 and 9000\n- mean, of values in 0..1: 0.1, 0.2, 0.3, 0.4, 0.5" in card
    assert "- size: shorter side to 36 px (bicubic, antialiased), then the central 32 px" in card
    names = {"images": torch.rand(2, 5, 32, 32)}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)
    normalised = (names["images"] - torch.tensor(STATISTICS.mean)[:, None, None]) / 0.2
    with torch.no_grad():
        expected = load_model(str(run)).backbone(normalised).cls
    torch.testing.assert_close(names["features"], expected, atol=1e-5, rtol=1e-4)
    assert timm.create_model("hf-hub:me/birds", pretrained=True).num_classes == 0
    loaded = load_model("hf-hub:me/birds", channels=5)
    torch.testing.assert_close(loaded.backbone(normalised).cls, expected, atol=1e-5, rtol=1e-4)
    assert (loaded.preprocessing.size, loaded.preprocessing.mean) == (32, tuple(STATISTICS.mean))


@pytest.mark.parametrize(("arguments", "preprocessing"), CASES.values(), ids=CASES)
def test_transformers_loads_the_runs_backbone(arguments, preprocessing, make_run):
    transformers = pytest.importorskip("transformers")
    run = make_run(preprocessing, teacher=TimmBackbone(**arguments))
    folder = export(run, "hf").folder
    model, seen = transformers.AutoModel.from_pretrained(folder).eval(), images_of(preprocessing)
    with torch.no_grad():
        found, expected = model(seen).pooler_output, load_model(str(run)).backbone(seen).cls
    assert far(found, expected) < 5e-6  # its attention may be fused where the run's was not
    prepared = transformers.AutoImageProcessor.from_pretrained(folder).data_config
    assert (tuple(prepared["mean"]), tuple(prepared["std"])) == (tuple(preprocessing.mean), tuple(preprocessing.std))
    assert prepared["input_size"][-1] == preprocessing.size


def test_the_number_of_classes_is_no_argument_of_the_model(make_run):
    # transformers passes num_classes itself, and fails on a second one.
    config = json.loads((export(make_run(), "hf").folder / "config.json").read_text())
    assert "num_classes" not in config["model_args"]
    assert config["num_classes"] == 0


def hub(folder, repository, filename):
    assert repository == "me/birds"
    if not (folder / filename).exists():
        raise FileNotFoundError(filename)
    return str(folder / filename)


@pytest.fixture
def api(monkeypatch):
    Hub.asked, Hub.readme, Hub.error = [], False, None
    monkeypatch.setattr(hub_folder, "HfApi", Hub)
    return Hub


@pytest.mark.parametrize("private", [False, True])
def test_a_push_makes_the_repository_and_uploads_the_folder(private, api, tmp_path):
    assert hub_folder.push(tmp_path, "me/birds", private) == "https://huggingface.co/me/birds"
    expected = [("create", "me/birds", private or None, True), ("upload", "me/birds", tmp_path, None)]
    assert api.asked == [("api", "sslkit"), *expected]


@pytest.mark.parametrize("error", [LocalTokenNotFoundError("no token.\nmore"), RuntimeError("no token")])
def test_a_failed_push_says_how_to_go_on(error, api, tmp_path):
    api.error = error
    with pytest.raises(SSLKitError) as raised:
        hub_folder.push(tmp_path, "me/birds")
    assert str(raised.value) == (
        f"{tmp_path} is written but not pushed to me/birds: no token. Log in with `hf auth login`, or set HF_TOKEN; "
        f"then `hf upload me/birds {tmp_path}` pushes it."
    )


@pytest.mark.parametrize("name", ["birds", "a/b/c", "me/bi rds", "me/", "", "me/a--b"])
def test_what_is_no_repository_is_refused_before_anything_is_done(name, api, tmp_path):
    with pytest.raises(SSLKitError, match="--push"):
        hub_folder.push(tmp_path, name)
    assert api.asked == []
