"""A recipe from its name to built components: data in short, first weights, identity."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslkit.errors import DataError, RecipeError
from sslkit.recipe import load
from sslkit.recipe.loading import load_data

BASE = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")

IMAGES = BASE.replace("TinyImages: {path: somewhere, num_images: 64}", "HuggingFaceImages: {path: hub/name}").replace(
    "TinyImages: {split: test}", "HuggingFaceImages: {split: validation}"
)

DRAWN = BASE.replace("TinyImages: {path: somewhere, num_images: 64}", "Textures: {num_images: 8}").replace(
    "TinyImages: {split: test}", "Textures: {num_images: 8, split: test}"
)

AFRESH = {"network": None, "partial": [], "heads": False, "fingerprint": None}


@pytest.fixture
def folder(tmp_path):
    """Return a function that makes a folder of images of these names."""

    def make(*names: str, root: str = "photos") -> str:
        for name in names:
            (tmp_path / root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / root / name)
        return str(tmp_path / root)

    return make


@pytest.mark.parametrize("recipe", [IMAGES, DRAWN], ids=["path", "drawn"])
@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train/a.png", "val/b.png"], "validation"),
        (["train/a.png", "test/b.png"], "test"),
        (["a.png", "b.png"], None),
    ],
)
def test_data_in_short_takes_the_test_split_that_there_is(recipe, names, split, folder, write, caplog):
    place = folder(*names)
    short = load(write(recipe), ["--data", place])
    test = short.build().data.test
    assert (test is None) == (split is None)
    again = load(write(short.to_yaml(), "resolved.yaml"))
    assert again.resolved == short.resolved
    written = short.resolved["data"]["test"]
    if split is None:
        assert written is None
        (message,) = caplog.messages
        assert message.startswith(f"{place} has no test split (only train)")
        assert "--data.test '{HuggingFaceImages: {split: NAME}}'" in message
    else:
        # "val" is another word for the validation split, as the folder has it.
        assert (written["HuggingFaceImages"]["split"], caplog.messages) == (split, [])


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "{place}", "--data.test", "{HuggingFaceImages: {split: validation}}"],
        ["--data.test.split", "validation", "--data", "{place}"],
        ["--data.train.path", "{place}"],
    ],
)
def test_a_split_that_was_written_is_not_replaced(words, folder, write):
    place = folder("a.png")
    words = [place if word == "{place}" else word for word in words]
    said = r"^data\.test: .* has no split 'validation'\. Choices: train\. .*--data\.test null\.$"
    with pytest.raises(DataError, match=said):
        load(write(IMAGES), words).build()


def test_no_test_images_stay_none_in_short(folder, write):
    place = folder("train/a.png", "test/b.png")
    assert load(write(DRAWN), ["--data.test", "null", "--data", place]).build().data.test is None


def test_a_resolved_recipe_can_be_used_from_any_folder(folder, write, tmp_path, monkeypatch):
    place = folder("train/a.png", "test/b.png")
    monkeypatch.chdir(tmp_path)
    near = load(write(IMAGES), ["--data", "photos"])
    paths = [near.resolved["data"][part]["HuggingFaceImages"]["path"] for part in ("train", "test")]
    assert paths == [place, place]
    assert load(write(IMAGES)).resolved["data"]["train"]["HuggingFaceImages"]["path"] == "hub/name"
    monkeypatch.chdir("/")
    far = load(write(IMAGES), ["--data", place])
    assert near.identity(["ab"]) == far.identity(["ab"])


def test_classes_that_training_does_not_know_are_refused_before_training(folder, write):
    train, test = folder("ant/1.png", "bee/1.png", root="here"), folder("ant/1.png", "fly/1.png", root="there")
    words = ["--data.train.path", train, "--data.test", f"{{HuggingFaceImages: {{path: {test}, split: train}}}}"]
    with pytest.raises(DataError, match="the class 'fly' is unknown to here train"):
        load(write(IMAGES), words).build()


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "..", ".x", "", "5", "[a]", "null", "x" * 101, "a\nb", "~"])
def test_a_name_is_that_of_one_folder(name, base):
    with pytest.raises(RecipeError, match="name is that of the recipe's runs, at most 100 letters"):
        base("--name", json.dumps(name) if name not in ("5", "[a]", "null") else name)


@pytest.mark.parametrize("name", ["mine", "été-2 (b=3).v1", "5e"])
def test_a_name_may_be_any_usual_word(name, base):
    assert base("--name", json.dumps(name)).name == name


def test_a_name_that_looks_like_a_class_may_be_written_twice(base, write):
    recipe = base("--data", "Photos")
    assert (recipe.root.at("data.train.path"), recipe.root.at("data.test.path")) == ("Photos", "Photos")
    write(f"name: Foo\n{BASE}", "some.yaml")
    assert load(write("base: ./some.yaml\nname: Foo\n", "over.yaml")).name == "Foo"


def test_images_are_made_without_the_rest_of_the_recipe(write):
    file = write(BASE.replace("TinyOperator", "nobody.knows.Operator"))
    data = load_data(file)
    assert (data.train.path, data.train.split, data.train.channels) == ("somewhere", "train", 3)
    assert data.test.split == "test"


def test_no_test_images(base):
    assert base("--data.test", "null").build().data.test is None


def test_weights_come_from_the_seed_alone(base):
    first = base().build().method
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second = base("--views.num_local", "0", "--data.train.num_images", "3").build().method
    assert torch.equal(before, torch.get_rng_state())
    for one, other in zip(first.backbone.parameters(), second.backbone.parameters()):
        assert torch.equal(one, other)
    other_seed = base("--seed", "1").build().method
    assert not torch.equal(first.head.projector.weight, other_seed.head.projector.weight)


def test_networks_can_be_built_again_from_another_seed(base):
    recipe = base()
    built = recipe.build().method
    backbone, head = recipe.build_networks(seed=0)
    other, _ = recipe.build_networks(seed=1)
    assert torch.equal(backbone.linear.weight, built.backbone.linear.weight)
    assert torch.equal(head.projector.weight, built.head.projector.weight)
    assert not torch.equal(other.linear.weight, built.backbone.linear.weight)


def test_first_weights_do_not_depend_on_what_the_operator_draws(base):
    words = ["--method.head.num_prototypes", "null", "--method.predictor", "TinyPredictor"]
    queue = ["--method.collapse", "{NegativeQueue: {size: 7}}", "--method.loss", "InfoNCE"]
    none = ["--method.collapse", "null", "--method.loss", "MSE"]
    one, other = (base(*words, *more).build().method for more in (queue, none))
    for network in ("backbone", "head", "predictor"):
        weights = getattr(one, network).state_dict()
        assert all(torch.equal(weight, weights[name]) for name, weight in getattr(other, network).state_dict().items())


def test_identity_is_what_a_run_learns(base):
    same = [
        ["--runtime.log_every", "3"],
        ["--evaluation.every", "1 epochs"],
        ["--data.num_images", "9"],
        ["--name", "x"],
    ]
    other = [["--seed", "1"], ["--method.loss.temperature", "0.2"], ["--data", "there"], ["--precision", "fp32"]]
    assert {base(*words).identity() for words in same} == {base().identity()}
    assert len({base(*words).identity() for words in other} | {base().identity()}) == 5
    assert base("--data", "there").identity(["ab", "cd"]) == base().identity(["ab", "cd"]) != base().identity(["ab"])


@pytest.mark.parametrize(
    ("lower", "overrides", "expected"),
    [
        (None, [], None),
        (None, ["--method.init_from", "Runs"], {"weights": "Runs"}),
        ("timm:one", ["--method.init_from.partial", "[a, b.1]"], {"weights": "timm:one", "partial": ["a", "b.1"]}),
        ("{weights: one, heads: true}", ["--method.init_from.network", "student"],
         {"weights": "one", "heads": True, "network": "student"}),
        ("{weights: one, heads: true, fingerprint: ab}", ["--method.init_from", "two"], {"weights": "two"}),
        ("{weights: one, partial: [a]}", ["--method.init_from.weights", "two"], {"weights": "two", "partial": ["a"]}),
        ("timm:one", ["--method.init_from", "null"], None),
    ],
)  # fmt: skip
def test_weights_to_start_from_are_a_name_or_a_section(lower, overrides, expected, write):
    text = BASE if lower is None else BASE.replace("  head: TinyHead\n", f"  head: TinyHead\n  init_from: {lower}\n")
    recipe = load(write(text), overrides)
    assert recipe.resolved["method"]["init_from"] == (expected if expected is None else AFRESH | expected)
    again = load(write(recipe.to_yaml(), "again.yaml"))
    assert (again.resolved, again.identity()) == (recipe.resolved, recipe.identity())


def test_weights_on_this_machine_are_named_from_the_root_and_known_by_their_fingerprint(base, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    assert base("--method.init_from", "run").resolved["method"]["init_from"]["weights"] == str(tmp_path / "run")
    known = [f"{{weights: {place}, fingerprint: ab}}" for place in ("run", "elsewhere")]
    identities = {base("--method.init_from", given).identity() for given in known}
    assert len(identities) == 1
    assert len(identities | {base("--method.init_from", "run").identity(), base().identity()}) == 3
