"""The model card says what the run measured and how it is used."""

import re

import pytest
import yaml
from hub import Hub, card_of
from huggingface_hub import ModelCard

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.exporting import hub_folder
from sslkit.exporting.export import export

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


@pytest.mark.parametrize("license", [None, "cc-by-4.0"])
def test_the_hub_can_read_the_card(license, make_run, tmp_path):
    folder = export(make_run(), "hf", license=license, repository="me/my-birds").folder
    card = ModelCard.load(folder / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("timm", "image-feature-extraction")
    assert card.data.license == license
    assert ("# license: not specified yet" in card_of(folder)) == (license is None)
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


@pytest.fixture
def api(monkeypatch):
    Hub.asked, Hub.readme, Hub.error = [], False, None
    monkeypatch.setattr(hub_folder, "HfApi", Hub)
    return Hub


def test_a_card_that_people_wrote_stays(api, tmp_path):
    api.readme = True
    hub_folder.push(tmp_path, "me/birds")
    assert api.asked[-1] == ("upload", "me/birds", tmp_path, ["README.md"])
