"""Proposals settle what they are for, and round-trip through a recipe file."""

import shlex
from pathlib import Path

import pytest
import torch
import yaml

from sslkit import plugins
from sslkit.errors import SSLKitError
from sslkit.explain.proposals import changed, check_new_file, propose, write_overlay
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.recipe import load
from sslkit.recipe.files import find

SHALLOW = {
    "vit": "{depth: 1, embed_dim: 24, num_heads: 2}",
    "res": "{layers: [1, 1, 1, 1], channels: [8, 8, 8, 16]}",
}
FAULTS = {
    "dino-vit-small": ["--method.collapse.temperature", "0.08", "--method.collapse.momentum", "0.999"],
    "dino-vit-small-no-local": [
        "--method.head.l2_bottleneck",
        "false",
        "--optimization.freeze.prototypes",
        "9999 epochs",
    ],
    "moco-v2-resnet50": ["--optimization.batch_size", "8"],
    "swav-resnet50": ["--optimization.batch_size", "32"],
    "swav-resnet50-batch-256": ["--method.collapse.queue_size", "1000", "--optimization.epochs", "9"],
    "byol-vit-small": ["--optimization.epochs", "2"],
    "quickstart": ["--optimization.steps", "3"],
}


def shallow(name):
    return ["--method.backbone.model_args", SHALLOW[load(name).root.at("method.backbone.name")[:3]]]


def proposed(recipe, images):
    with torch.device("meta"):
        return propose(recipe, images)


def open_changes(recipe, images):
    builder = recipe.builder()
    with torch.device("meta"):
        found = recommendations(recipe, builder, run_context(builder, images))
    return [recommendation.changes for recommendation in found if recommendation.changes]


@pytest.mark.parametrize("images", [40, 3_000, 60_000])
@pytest.mark.parametrize("name", FAULTS)
def test_what_is_proposed_leaves_no_proposal(name, images, tmp_path):
    words = [*shallow(name), *FAULTS[name]]
    recipe = changed(load(name, words), {"data.num_images": images})
    settled, mended = proposed(recipe, images)
    assert settled
    assert open_changes(mended, images) == []

    file = tmp_path / "mended.yaml"
    assert write_overlay(file, mended, name, settled) == f"Written: {file}"
    again = load(file)
    assert again.resolved == {**mended.resolved, "name": "mended"}
    assert proposed(again, images) == ([], again)


@pytest.mark.parametrize("name", ["dino-vit-small", "swav-resnet50"])
def test_the_printed_overrides_do_the_same(name):
    recipe = load(name, shallow(name))
    settled, mended = proposed(recipe, 5_000)
    pairs = ((key, value) for recommendation in settled for key, value in recommendation.changes.items())
    words = [word for key, value in pairs for word in (f"--{key}", yaml.safe_dump(value, default_flow_style=True))]
    assert load(name, [*shallow(name), *words]).resolved == mended.resolved


def test_changes_are_made_one_after_the_other():
    """The batch first: the momentum depends on the length of an epoch, the queue on the prototypes."""
    settled, mended = proposed(load("swav-resnet50", shallow("swav-resnet50")), 1_000)
    keys = [key for recommendation in settled for key in recommendation.changes]
    assert keys[0] == "optimization.batch_size"
    assert mended.root.at("optimization.batch_size") == 64
    assert mended.root.at("method.head.num_prototypes") == 64
    assert "method.collapse.queue_size" not in keys


def test_a_part_that_is_never_content_ends(tmp_path):
    (tmp_path / "wary.py").write_text(
        "from sslkit import Centering, Recommendation\n\n\nclass Wary(Centering):\n    def recommend(self, context):\n"
        "        yield Recommendation('never content', 'nowhere', {'momentum': 0.5})\n"
    )
    with plugins.using([tmp_path / "wary.py"]):
        recipe = load("quickstart", ["--method.collapse", "{Wary: {momentum: 0.4}}"])
        settled, mended = proposed(recipe, 4_000)
    assert [recommendation.changes for recommendation in settled] == [{"method.collapse.momentum": 0.5}]
    assert mended.root.at("method.collapse.momentum") == 0.5


# The file


def test_the_file_says_what_it_differs_in_and_why(tmp_path):
    recipe = load("quickstart", ["--seed", "3", "--method.collapse.temperature", "0.08"])
    settled, mended = proposed(recipe, 4_000)
    file = tmp_path / "warm er.yaml"
    write_overlay(file, mended, "quickstart", settled)
    text = file.read_text()
    lines = text.splitlines()
    assert lines[:3] == [
        "# quickstart, adapted by sslkit explain.",
        f"# Run     sslkit train {shlex.quote(str(file))}",
        "# Differs from quickstart",
    ]
    assert lines[3].startswith("#   - method.collapse: the teacher's temperature starts at 0.08")
    assert max(map(len, lines)) <= 110
    values = yaml.safe_load(text)
    assert values.pop("method") == {
        "collapse": {
            "Centering": {"temperature": {"Warmup": {"start": 0.04, "end": 0.07, "over": "2 epochs", "every": "epoch"}}}
        }
    }
    assert values == {"base": "quickstart", "seed": 3}


def test_a_file_is_named_from_where_the_overlay_lies(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    own = tmp_path / "mine" / "own.yaml"
    own.write_text("base: quickstart\nmethod: {collapse: {temperature: 0.08}}\n")
    monkeypatch.chdir(own.parent)
    settled, mended = proposed(load("own.yaml"), 4_000)
    write_overlay(tmp_path / "new.yaml", mended, "own.yaml", settled)
    assert yaml.safe_load((tmp_path / "new.yaml").read_text())["base"] == "mine/own.yaml"
    assert load(tmp_path / "new.yaml").resolved["method"] == mended.resolved["method"]


@pytest.mark.parametrize("more", [[], ["--data.train.split", "training"]])
def test_images_of_a_command_line_stay(more, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    words = ["--data", "photos", *more, "--method.collapse.temperature", "0.08"]
    settled, mended = proposed(load("quickstart", words), 4_000)
    write_overlay(tmp_path / "new.yaml", mended, "quickstart", settled)
    data = yaml.safe_load((tmp_path / "new.yaml").read_text())["data"]
    if not more:
        assert data == str(tmp_path / "photos")  # in short, so that any test split will do
    assert load(tmp_path / "new.yaml").resolved["data"] == mended.resolved["data"]


def test_without_a_proposal_nothing_is_written(tmp_path):
    file = tmp_path / "new.yaml"
    assert (
        write_overlay(file, load("quickstart"), "quickstart", [])
        == f"There is nothing to propose: {file} was not written."
    )
    assert not file.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("there.yaml", "exists already and is not overwritten"),
        ("new.txt", r"a recipe is a YAML file, such as .*new\.yaml"),
        ("nowhere/new.yml", "there is no folder"),
    ],
)
def test_a_file_that_cannot_be_new_is_refused(name, said, tmp_path):
    (tmp_path / "there.yaml").write_text("seed: 1\n")
    with pytest.raises(SSLKitError, match=said):
        check_new_file(tmp_path / name)
    assert (tmp_path / "there.yaml").read_text() == "seed: 1\n"


def test_changes_are_overrides():
    recipe = changed(load("quickstart"), {"method.teacher.momentum": 0.5, "seed": 4})
    assert (recipe.root.at("method.teacher.momentum"), recipe.root.at("seed"), recipe.name) == (0.5, 4, "quickstart")
    assert recipe.origins("seed") == ["command line"]
    assert find("quickstart", Path()) == find(recipe.name, Path())
    with pytest.raises(SSLKitError, match=r"unknown key 'method\.techer'"):
        changed(recipe, {"method.techer": 1})
