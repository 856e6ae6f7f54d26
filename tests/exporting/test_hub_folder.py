"""The Hub folder: a card that is true and whose code runs, and an upload that keeps what people wrote."""

import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError

from sslkit.backbones.loading import load_model
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError
from sslkit.exporting import hub_folder
from sslkit.exporting.export import export
from sslkit.exporting.provenance import papers, without_places
from sslkit.types import Preprocessing

RECIPE = """\
name: tiny
method:
  backbone: {TimmBackbone: {name: test_vit, pretrained: false}}
  head: DINOHead
  teacher: {EMA: {momentum: {Cosine: {start: 0.9, end: 1.0}}}}
  collapse: {SinkhornKnopp: {epsilon: 0.05}}
  loss: {Unheard: {temperature: 0.1}}
data:
  train: {HuggingFaceImages: {path: /home/somebody/secret place/birds, split: train}}
  test: {HuggingFaceImages: {path: ~/secret/birds, split: test}}
optimization: {optimizer: AdamW, epochs: 2}
evaluation: {evaluators: [KNN]}
"""


def row(step, network, top1, evaluator="knn", **metrics):
    named = {"step": step, "network": network, "evaluator": evaluator, "protocol": "knn-v1: cosine"}
    return {**named, "dataset": "birds test", "metrics": {f"{evaluator}/top1@20": top1, **metrics}}


RESULTS = [
    row(0, "untrained", 12.0),
    row(5, "student", 13.0),
    row(5, "teacher", 14.0),
    row(9, "student", 15.0),
    row(9, "teacher", 16.26, **{"knn/top5@20": 50.0}),
    row(9, "teacher", 17.0, evaluator="linear"),
]


def card_of(folder):
    return (folder / "README.md").read_text()


def front_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_the_run_measured(make_run):
    card = card_of(export(make_run(recipe=RECIPE, results=RESULTS), "hf").folder)
    knn = """\
knn on birds test, in percent, after 9 steps (knn-v1: cosine):

|  | teacher | untrained | student |
| --- | --- | --- | --- |
| knn/top1@20 | 16.3 | 12.0 | 15.0 |
| knn/top5@20 | 50.0 |  |  |
"""
    assert knn in card
    assert "linear on birds test" in card
    assert "| linear/top1@20 | 17.0 |" in card


def test_the_card_tells_the_recipe_and_its_papers_but_no_folder(make_run):
    run = make_run(recipe=RECIPE)
    card = card_of(export(run, "hf").folder)
    told = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card, re.DOTALL)[1])
    expected = yaml.safe_load(RECIPE)
    for part in ("train", "test"):
        expected["data"][part]["HuggingFaceImages"]["path"] = "birds"
    assert told == expected
    assert "On the images `{HuggingFaceImages: {path: birds, split: train}}`, with sslkit " in card
    assert "secret" not in card
    assert str(run.parent) not in card
    assert "- SinkhornKnopp: [arXiv:2006.09882](https://arxiv.org/abs/2006.09882)" in card
    assert "KNN:" not in card.partition("## Citation")[2]
    assert "@software{sslkit," in card


@pytest.mark.parametrize("rule", ["timm", "dino"])
def test_the_card_says_where_timm_resamples_positions_otherwise(rule, make_run):
    run = make_run(teacher=TimmBackbone("test_vit", model_args={"depth": 1}, positions=rule))
    said = "\n- positions: stored for 32 px; for other sizes timm resamples them by its own rule, the run by that of"
    assert (said in card_of(export(run, "hf").folder)) == (rule == "dino")


def test_papers_come_from_docstrings_wherever_a_component_stands():
    found = papers({"method": {"x": [{"Centering": {"y": "Copy"}}, "nothing"]}, "data": "KNN"})
    assert list(found) == ["Centering", "Copy"]
    assert found["Copy"][0] == "[arXiv:2006.09882](https://arxiv.org/abs/2006.09882)"


def test_places_become_names():
    given = {"a": ["/x/y", "~/z", "~", "x/y", "hf-hub:a/b", 3, None], "b": {"c": "/"}}
    assert without_places(given) == {"a": ["y", "z", "~", "x/y", "hf-hub:a/b", 3, None], "b": {"c": ""}}


@pytest.mark.parametrize("license", [None, "cc-by-4.0"])
def test_the_hub_can_read_the_card(license, make_run, tmp_path):
    folder = export(make_run(), "hf", license=license, repository="me/my-birds").folder
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("timm", "image-feature-extraction")
    assert card.data.license == license
    assert ("# license: not said yet" in card_of(folder)) == (license is None)
    assert front_of(card_of(folder))["tags"] == ["timm", "sslkit", "self-supervised-learning"]
    assert "\n# my-birds\n" in card_of(folder)


def test_a_backbone_without_a_run_has_a_shorter_card(tmp_path):
    TimmBackbone("test_resnet").save(tmp_path / "mine")
    card = card_of(export(tmp_path / "mine", "hf").folder)
    assert re.findall(r"^#+ .*", card.split("---\n")[2], re.MULTILINE) == [
        "# mine",
        "## Use",
        "## Images",
        "## Citation",
    ]


def test_a_damaged_file_of_the_run_is_named(make_run, tmp_path):
    run = make_run()
    (run / "results.json").write_text("[{")
    with pytest.raises(SSLKitError, match=r"results.json cannot be read"):
        export(run, "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


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


def hub(folder, repository, filename):
    assert repository == "me/birds"
    if not (folder / filename).exists():
        raise FileNotFoundError(filename)
    return str(folder / filename)


class Hub:
    """HfApi as far as an upload needs it; remembers what it was asked."""

    asked: list
    readme = False
    error = None

    def __init__(self, **named):
        self.asked.append(("api", named["library_name"]))

    def create_repo(self, repo_id, private=None, exist_ok=False):
        if self.error:
            raise self.error
        self.asked.append(("create", repo_id, private, exist_ok))
        return Address(repo_id)

    def file_exists(self, repo_id, filename):
        assert filename == "README.md"
        return self.readme

    def upload_folder(self, repo_id, folder_path, ignore_patterns, commit_message):
        self.asked.append(("upload", repo_id, Path(folder_path), ignore_patterns))


class Address(str):
    @property
    def repo_id(self):
        return str.__str__(self)

    def __str__(self):
        return f"https://huggingface.co/{self.repo_id}"


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


def test_a_card_that_people_wrote_stays(api, tmp_path):
    api.readme = True
    hub_folder.push(tmp_path, "me/birds")
    assert api.asked[-1] == ("upload", "me/birds", tmp_path, ["README.md"])


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
