"""Recipes: found, merged by one rule, checked key by key, built with their links, written back."""

from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from sslkit import plugins
from sslkit.clock import Clock, Duration
from sslkit.errors import DataError, RecipeError, SSLKitError, UnknownName
from sslkit.recipe import load
from sslkit.recipe.files import builtin_recipes
from sslkit.recipe.layers import merge, read_overrides
from sslkit.recipe.links import LINKS
from sslkit.recipe.loading import load_data
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.signature import parameters, takes_anything
from sslkit.recipe.type_hints import phrase
from sslkit.schedules import Cosine, Schedule

TINY = Path(__file__).parent / "tiny_parts.py"

BASE = """\
method:
  backbone: {TinyBackbone: {width: 6}}
  head: TinyHead
  teacher: {TinyTeacher: {momentum: {Cosine: {start: 0.9, end: 1}}}}
  collapse: {TinyOperator: {temperature: 0.2}}
  loss: TinyLoss
views: TinyViews
data:
  train: {TinyImages: {path: somewhere, num_images: 64}}
  test: {TinyImages: {split: test}}
optimization: {optimizer: TinyOptimizer, batch_size: 8, epochs: 2, lr: 1e-3}
"""


@pytest.fixture(autouse=True)
def _tiny_parts():
    with plugins.using([TINY]):
        yield


@pytest.fixture
def write(tmp_path):
    def write_recipe(text: str = BASE, name: str = "some.yaml") -> Path:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_recipe


@pytest.fixture
def base(write):
    """Return a function that loads the tiny recipe with overrides."""
    file = write()
    return lambda *overrides: load(file, overrides)


# Merging


@pytest.mark.parametrize(
    ("lower", "upper", "merged"),
    [
        (1, 2, 2),
        ([1, 2], [3], [3]),
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"EMA": {"m": 1, "n": 2}}, {"EMA": {"m": 3}}, {"EMA": {"m": 3, "n": 2}}),
        ({"EMA": {"m": 1}}, "EMA", {"EMA": {"m": 1}}),
        ("EMA", {"EMA": {"m": 1}}, {"EMA": {"m": 1}}),
        ({"EMA": {"m": 1}}, {"Copy": None}, {"Copy": None}),
        ({"EMA": {"m": 1}}, "Copy", "Copy"),
        ({"EMA": {"m": 1}}, None, None),
        ({"EMA": {"m": 1}}, {"m": 3}, {"EMA": {"m": 3}}),
        ("EMA", {"m": 3}, {"EMA": {"m": 3}}),
        ({"EMA": None}, {"m": 3}, {"EMA": {"m": 3}}),
        (
            {"EMA": {"m": {"Cosine": {"start": 1, "end": 2}}}},
            {"m": {"start": 0}},
            {"EMA": {"m": {"Cosine": {"start": 0, "end": 2}}}},
        ),
        ({"EMA": {"m": 1}}, {"class_path": "EMA", "init_args": {"n": 2}}, {"EMA": {"m": 1, "n": 2}}),
        ({"EMA": {"m": 1}}, {"a.b.EMA": {"n": 2}}, {"a.b.EMA": {"m": 1, "n": 2}}),
        ({"a": {"b": 1}}, {"a": 3}, {"a": 3}),
        (3, {"Cosine": {"start": 1}}, {"Cosine": {"start": 1}}),
        ("Photos", "Photos", "Photos"),  # a folder, or a class without arguments, of which the same is said
        ("a.EMA", "EMA", "EMA"),
    ],
)
def test_one_rule_merges(lower, upper, merged):
    assert merge(lower, upper) == merged


def test_overrides_are_yaml():
    layers = read_overrides(["--a.b", "1e-3", "--c=true", "--d", "[1, no]", "--e", "-1", "--f", "{X: {y: 2}}", "--g="])
    values = [layer.values for layer in layers]
    assert values == [
        {"a": {"b": 0.001}},
        {"c": True},
        {"d": [1, "no"]},
        {"e": -1},
        {"f": {"X": {"y": 2}}},
        {"g": None},
    ]


@pytest.mark.parametrize("words", [["a", "1"], ["--a"], ["--a", "--b", "1"], ["--a", "{b"], ["--"]])
def test_words_that_are_no_override_are_refused(words):
    with pytest.raises(RecipeError):
        read_overrides(words)


@pytest.mark.parametrize("text", ["1e-3", "1E3", "1.5e+2", "-.5", "3.", "+1.0", ".inf"])
def test_numbers_are_numbers(text, base):
    assert base("--method.loss.temperature", text).root.at("method.loss.temperature") == float(
        text.replace(".inf", "inf")
    )


# Overlays


def test_a_base_is_overlaid_by_a_chain_relative_to_each_file(write):
    write()
    write("base: ../some.yaml\nmethod: {teacher: {momentum: 0.5}}\nseed: 3\n", "inner/middle.yaml")
    top = write("base: inner/middle.yaml\nmethod: {collapse: {TinyOperator: {temperature: null}}}\n", "top.yaml")
    recipe = load(top, ["--seed", "4"])
    assert recipe.name == "top"
    assert recipe.root.at("method.teacher.momentum") == 0.5
    assert recipe.root.at("method.collapse.temperature") is None
    assert recipe.root.at("method.backbone.width") == 6
    assert [Path(origin).name for origin in recipe.origins("seed")] == ["middle.yaml", "command line"]
    assert [Path(origin).name for origin in recipe.origins("method.teacher")] == ["some.yaml", "middle.yaml"]
    assert recipe.origins("runtime.device") == []


@pytest.mark.parametrize("content", [b"seed: 1 # caf\xe9\n", b"\xff\xfe\x00", b"seed: \x00\n"])
def test_a_file_that_is_no_text_is_refused(content, tmp_path):
    (tmp_path / "other.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"other\.yaml cannot be read: a recipe is text in UTF-8"):
        load(tmp_path / "other.yaml")


def test_a_circle_is_refused(write):
    write("base: b.yaml\n", "a.yaml")
    with pytest.raises(RecipeError, match=r"circle: b\.yaml -> a\.yaml -> b\.yaml"):
        load(write("base: a.yaml\n", "b.yaml"))


def test_builtin_recipes_are_found_by_name_and_can_be_overlaid(write):
    assert "quickstart" in builtin_recipes()
    recipe = load(write("base: quickstart\nseed: 5\n"))
    assert recipe.root.at("seed") == 5
    assert recipe.root.at("method").cls is load("quickstart").root.at("method").cls


@pytest.mark.parametrize("name", sorted(builtin_recipes()))
def test_every_builtin_recipe_loads_and_opens_with_its_command(name):
    recipe = load(name)
    assert recipe.name == name
    text = builtin_recipes()[name].read_text()
    assert f"\n# Run     sslkit train {name}" in text
    assert "\n# Cost    " in text
    assert "\n# Result  " in text
    assert "\n# Differs from the paper" in text


def test_unknown_recipes_are_refused(tmp_path):
    with pytest.raises(UnknownName, match=r"unknown recipe 'quickstat'\. Did you mean 'quickstart'"):
        load("quickstat")
    with pytest.raises(RecipeError, match=r"no recipe file .*none\.yaml"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "some.yaml:2: not valid YAML"),
        ("- 1\n", "is not a recipe"),
        ("", "is not a recipe"),
        ("seed: 1\nseed: 2\n", "some.yaml:2: the key 'seed' stands twice"),
    ],
)
def test_files_that_are_no_recipe_are_refused(text, said, write):
    with pytest.raises(RecipeError) as refused:
        load(write(text))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "seed: 1\n<<: {runtime: {threads: 1}}\n",
        "x: &a {seed: 1}\n<<: *a\n",
        "x: &a {seed: 1}\n<<: [*a, {seed: 2}]\n",
        "x: &a {lr: 1}\noptimization: {lr: 2, <<: *a}\n",
        "seed: 1\nmethod: {loss: {MSE: {<<: {}}}}\n",
        "x:\n  - {<<: {}}\n",
        "seed: 1\n!!merge x: {seed: 2}\n",
        "seed: 1\ny: !!str {=: text, <<: {}}\n",
    ],
)
def test_merge_keys_are_refused_wherever_they_stand(text, write):
    file = write(text)
    with pytest.raises(RecipeError, match=r"some\.yaml:2: the merge key << .* write base: NAME .* or repeat the keys$"):
        load(file)
    with pytest.raises(RecipeError, match=r"some\.yaml:2: the merge key"):
        load(write("base: ./some.yaml\n", "over.yaml"))
    with pytest.raises(RecipeError, match=r"--x '.*': the merge key << .* or repeat the keys$"):
        read_overrides(["--x", text])


def test_a_quoted_merge_key_is_a_key_like_any_other(write, base):
    assert read_overrides(["--x", "{'<<': 1, \"<<a\": 2}"])[0].values == {"x": {"<<": 1, "<<a": 2}}
    with pytest.raises(RecipeError, match="unknown key '<<'"):
        load(write(f'{BASE}"<<": {{}}\n'))
    with pytest.raises(RecipeError, match=r"unknown key 'method\.<<'"):
        base("--method", '{"<<": {}}')


# Checks


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--methd.teacher", "x"], "unknown key 'methd'. Did you mean 'method'?"),
        (["--method.teachr", "TinyTeacher"], "unknown key 'method.teachr'. Did you mean 'teacher'?"),
        (
            ["--method.teacher.momentumm", "1"],
            "unknown key 'method.teacher.momentumm' of TinyTeacher. Did you mean 'momentum'?",
        ),
        (
            ["--method.teacher", "TinyTeachr"],
            "method.teacher: unknown teacher update 'TinyTeachr'. Did you mean 'TinyTeacher'?",
        ),
        (
            ["--method.teacher.momentum", "{Cosin: {}}"],
            "method.teacher.momentum: unknown schedule 'Cosin'. Did you mean 'Cosine'?",
        ),
        (["--method.teacher.momentum", "high"], "method.teacher.momentum must be a number or a schedule, not 'high'"),
        (["--method.teacher.momentum.start", "high"], "method.teacher.momentum.start must be a number, not 'high'"),
        (["--method.teacher.momentum.warmup", "3"], "method.teacher.momentum.warmup must be text"),
        (["--method.teacher.momentum.warmup", "3 weeks"], "method.teacher.momentum: a duration is written like"),
        (["--method.teacher", "3"], "method.teacher must be a teacher update, written Name or"),
        (["--method.teacher", "{TinyTeacher: {}, momentum: 1}"], "unknown key 'method.teacher.TinyTeacher'"),
        (["--method.head", "null"], "method.head must be a head, not null"),
        (["--method", "3"], "method is a section with keys backbone, head"),
        (["--optimization.batch_size", "2.5"], "optimization.batch_size must be a whole number, not 2.5"),
        (["--optimization.batch_size", "true"], "optimization.batch_size must be a whole number, not True"),
        (["--optimization.batch_size", "0"], "optimization.batch_size is at least 1, not 0"),
        (["--optimization.steps", "0"], "optimization.steps is at least 1, not 0"),
        (["--optimization.epochs", "0"], "optimization.epochs is above 0, not 0"),
        (["--optimization.epochs", ".nan"], "optimization.epochs is above 0, not nan"),
        (["--optimization.lr_reference_batch", "0"], "optimization.lr_reference_batch is at least 1, not 0"),
        (["--optimization.clip_grad_norm", "0"], "optimization.clip_grad_norm is above 0, not 0"),
        (["--optimization.lr", "-1e-3"], "optimization.lr is at least 0, not -0.001"),
        (["--optimization.lr", ".inf"], "optimization.lr is at least 0 and finite, not inf"),
        (
            ["--optimization.lr", "{Cosine: {start: -4e-3, end: 0}}"],
            "optimization.lr.start is at least 0, not -0.004",
        ),
        (
            ["--optimization.lr", "{Cosine: {start: 1, end: 0, warmup: 3 steps, every: epoch}}"],
            "optimization.lr: Cosine moves once an epoch, so its warmup is a whole number of epochs, not 3 steps",
        ),
        (["--runtime.accumulation", "0"], "runtime.accumulation is at least 1, not 0"),
        (
            ["--runtime.accumulation", "9"],
            "runtime.accumulation: the 8 images of a process cannot be cut into 9 micro-batches; take 1 to 8",
        ),
        (["--optimization.weight_decay", "-1"], "optimization.weight_decay is at least 0, not -1"),
        (["--data.num_images", "0"], "data.num_images is at least 1, not 0"),
        (["--data.channels", "0"], "data.channels is at least 1, not 0"),
        (["--runtime.checkpoint_every", "0 epochs"], "runtime.checkpoint_every is longer than nothing, not '0 epochs'"),
        (["--runtime.log_every", "0"], "runtime.log_every is at least 1, not 0"),
        (["--evaluation.every", "0 epochs"], "evaluation.every is longer than nothing, not '0 epochs'"),
        (["--evaluation.batch_size", "0"], "evaluation.batch_size is at least 1, not 0"),
        (["--evaluation.view_size", "0"], "evaluation.view_size is at least 1, not 0"),
        (
            ["--evaluation.view_size", "9", "--evaluation.resize", "8"],
            "evaluation.resize is at least evaluation.view_size, 9, not 8",
        ),
        (["--seed", "99999999999999999999999"], "seed is between 0 and 2**63 - 1, not 99999999999999999999999"),
        (["--seed", "-1"], "seed is between 0 and 2**63 - 1, not -1"),
        (["--method.head.num_prototypes", "-3"], "method.head: "),
        (["--method.teacher", "{EMA: {momentum: 1.5}}"], "method.teacher: the momentum of EMA lies in [0, 1], not 1.5"),
        (
            ["--method.teacher", "{EMA: {momentum: {Cosine: {start: 2, end: 1}}}}"],
            "method.teacher: the momentum.start of EMA lies in [0, 1], not 2",
        ),
        (["--evaluation.evaluators", "[{KNN: {k: [0]}}]"], "evaluation.evaluators.0: KNN: k=(0,)"),
        (["--evaluation.evaluators", "[{KNN: {temperature: 0}}]"], "evaluation.evaluators.0: KNN: k="),
        (["--optimization.optimizer.betas", "[1]"], "optimization.optimizer.betas must be a list of 2, each a number"),
        (
            ["--optimization.freeze.bone", "1 epochs"],
            "unknown key 'optimization.freeze.bone'. Did you mean 'backbone'?",
        ),
        (["--optimization.freeze.backbone", "1 day"], "optimization.freeze.backbone: a duration is written like"),
        (["--optimization.freeze.backbone", "3"], "optimization.freeze must be a mapping"),
        (["--method.batch_norm", "synchronised"], "method.batch_norm must be one of synchronized, local or a whole"),
        (["--method.batch_norm", "true"], "method.batch_norm must be one of synchronized, local or a whole number"),
        (["--method.batch_norm", "null"], "method.batch_norm must be one of synchronized, local or a whole number"),
        (["--method.batch_norm", "1"], "method.batch_norm is at least 2, not 1"),
        (["--method.separate_views", "1"], "method.separate_views must be true or false, not 1"),
        (["--precision", "fp8"], "precision must be one of auto, fp32, bf16, fp16, not 'fp8'"),
        (["--runtime.compile", "1"], "runtime.compile must be true or false, not 1"),
        (
            ["--runtime.callbacks", "[Tiny]"],
            "runtime.callbacks.0: unknown callback 'Tiny'. Did you mean 'TinyCallback'?",
        ),
        (
            ["--evaluation.evaluators", "[{TinyEvaluator: {k: many}}]"],
            "evaluation.evaluators.0.k must be a whole number",
        ),
        (["--evaluation.evaluators", "TinyEvaluator"], "evaluation.evaluators must be a list, each an evaluator"),
        (
            ["--evaluation.networks", "[teacher, pupil]"],
            "evaluation.networks must be a list, each one of teacher, student",
        ),
        (
            ["--method.collapse", "{Centering: {temperature: null}}", "--method.loss", "CrossEntropy"],
            "method.loss: CrossEntropy takes probabilities, but Centering yields logits",
        ),
        (["--method.student_views", "[0, 1, 0]"], "method.student_views: [0, 1, 0] names a view twice"),
        (["--method.teacher_views", "[1, 1]"], "method.teacher_views: [1, 1] names a view twice"),
        (["--method.student_views", "[0, 14]"], "method.student_views: there is no view 14; the ids are 0 to 3"),
        (
            ["--method.student_views", "[0]", "--method.teacher_views", "[0]"],
            "method.student_views [0] and method.teacher_views [0] hold no two different views",
        ),
        (["--data.mean", "[0.5]"], "data.mean has 1 values, but data.channels is 3"),
        (["--views", "sslkit.nowhere.Views"], "views: cannot import sslkit.nowhere.Views"),
    ],
)
def test_mistakes_get_one_message_with_the_key(overrides, said, base):
    with pytest.raises(SSLKitError) as refused:
        base(*overrides).build()
    assert said in str(refused.value)


def test_an_overlay_undoes_what_its_base_freezes(write):
    write(BASE.replace("lr: 1e-3}", "lr: 1e-3, freeze: {prototypes: 1 epochs, backbone: 3 steps}}"), "frozen.yaml")
    recipe = load(write("base: ./frozen.yaml\noptimization: {freeze: {prototypes: null}}\n", "thawed.yaml"))
    optimization = recipe.build().optimization
    assert optimization.freezes == {"backbone": Duration(3, "steps")}
    again = load(write(recipe.to_yaml(), "again.yaml"))
    assert again.resolved["optimization"]["freeze"] == {"prototypes": None, "backbone": "3 steps"}
    assert again.identity() == recipe.identity()


@pytest.mark.parametrize("value", ["synchronized", "local", 4])
def test_batch_norm_is_a_word_or_a_number(base, write, value):
    recipe = base("--method.batch_norm", str(value))
    assert recipe.build().method.batch_norm == value
    assert load(write(recipe.to_yaml(), "again.yaml")).build().method.batch_norm == value
    assert (recipe.identity() == base().identity()) == (value == "synchronized")


def test_a_mistake_in_a_file_names_the_file(write):
    with pytest.raises(RecipeError, match=r"unknown key 'method\.hed'.*some\.yaml\)$"):
        load(write(BASE.replace("head:", "hed:")))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  head: TinyHead\n", "method.head is missing: it must be a head, one of "),
        ("views: TinyViews\n", "views is missing: it must be a view maker"),
        (
            "optimization: {optimizer: TinyOptimizer, batch_size: 8, epochs: 2, lr: 1e-3}\n",
            "optimization.optimizer is missing",
        ),
    ],
)
def test_what_is_missing_is_named(line, said, write):
    assert line in BASE
    with pytest.raises(RecipeError) as refused:
        load(write(BASE.replace(line, "")))
    assert said in str(refused.value)


def test_types_in_words():
    assert phrase(float | Schedule | None) == "a number or a schedule or null"
    assert phrase(list[int]) == "a list, each a whole number"
    assert phrase(tuple[float, ...]) == "a list, each a number"


def test_arguments_are_followed_to_the_parents():
    class Parent:
        """A.

        Args:
            a: the first.
        """

        def __init__(self, a: int, b: str = "b") -> None: ...

    class Child(Parent):
        def __init__(self, c: float = 1.0, **others: object) -> None: ...

    class Open:
        def __init__(self, **anything: object) -> None: ...

    assert [(p.name, p.hint) for p in parameters(Child).values()] == [("c", float), ("a", int), ("b", str)]
    assert parameters(Child)["a"].doc == "the first."
    assert not takes_anything(Child)
    assert takes_anything(Open)


# Images of a folder

IMAGES = BASE.replace("TinyImages: {path: somewhere, num_images: 64}", "HuggingFaceImages: {path: hub/name}").replace(
    "TinyImages: {split: test}", "HuggingFaceImages: {split: validation}"
)
DRAWN = BASE.replace("TinyImages: {path: somewhere, num_images: 64}", "Textures: {num_images: 8}").replace(
    "TinyImages: {split: test}", "Textures: {num_images: 8, split: test}"
)


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


def test_a_name_that_looks_like_a_class_may_be_written_twice(base, write):
    recipe = base("--data", "Photos")
    assert (recipe.root.at("data.train.path"), recipe.root.at("data.test.path")) == ("Photos", "Photos")
    write(f"name: Foo\n{BASE}", "some.yaml")
    assert load(write("base: ./some.yaml\nname: Foo\n", "over.yaml")).name == "Foo"


# Building


def test_parts_are_built_and_linked(base):
    parts = base().build()
    assert isinstance(parts, BuiltRecipe)
    assert parts.method.head.projector.in_features == 6
    assert parts.method.collapse.num_prototypes == 16
    assert isinstance(parts.method.teacher.momentum, Cosine)
    assert (parts.data.train.split, parts.data.test.split) == ("train", "test")
    assert parts.data.test.path == "somewhere"
    assert list(parts.views.mean) == [0.485, 0.456, 0.406]
    assert parts.method.predictor is None
    assert parts.runtime.callbacks == []


def test_channels_reach_every_part(base):
    five = ["--data.channels", "5", "--data.mean", "[0, 0, 0, 0, 0]", "--data.std", "[1, 1, 1, 1, 1]"]
    parts = base(*five, "--method.predictor", "TinyPredictor").build()
    assert parts.method.backbone.in_chans == parts.views.channels == parts.data.train.channels == 5
    assert len(parts.views.mean) == 5
    assert parts.method.predictor.linear.in_features == parts.method.head.embed_dim


def test_an_open_class_takes_what_it_is_given(base):
    evaluator = base("--evaluation.evaluators", "[{TinyEvaluator: {word: [1, two]}}, TinyEvaluator]").build().evaluation
    assert [e.words for e in evaluator.evaluators] == [{"word": [1, "two"]}, {}]


def test_another_class_forgets_the_arguments(base):
    parts = base("--method.teacher", "OtherTeacher", "--method.teacher.patience", "3").build()
    assert type(parts.method.teacher).__name__ == "OtherTeacher"
    assert parts.method.teacher.patience == 3


def test_a_link_that_disagrees_is_refused_and_one_that_agrees_is_not(base):
    with pytest.raises(RecipeError, match=r"method\.head\.in_dim is 7, but method\.backbone\.embed_dim is 6"):
        base("--method.head.in_dim", "7").build()
    assert base("--method.head.in_dim", "6").build().method.head.projector.in_features == 6


def test_a_link_from_nothing_is_refused(base):
    with pytest.raises(RecipeError, match=r"^method\.collapse: TinyOperator needs a head with prototypes"):
        base("--method.head.num_prototypes", "null").build()


def test_links_are_between_keys_that_exist():
    sections = {name: p.hint for name, p in parameters(BuiltRecipe).items()}
    for link in LINKS:
        for key in link:
            section, *rest = key.split(".")
            assert section in sections
            if len(rest) == 2:
                assert rest[0] in parameters(sections[section])


def test_sizes_that_the_patch_does_not_divide_are_refused(base):
    with pytest.raises(RecipeError, match=r"views\.size: 10 pixels are no multiple of .* patch of 4; take 8 or 12"):
        base("--views.size", "10").build()
    assert base("--views.size", "10", "--method.backbone.patch_size", "null").build().views.sizes[0] == 10


def test_other_channels_in_the_images_are_refused(base):
    with pytest.raises(RecipeError, match=r"data\.train\.channels is 1, but data\.channels is 3"):
        base("--data.train.channels", "1").build()


def test_a_refusal_in_a_constructor_names_the_key(base):
    with pytest.raises(RecipeError, match=r"^method\.backbone: width is at least 1, not 0$"):
        base("--method.backbone.width", "0").build()
    with pytest.raises(DataError, match=r"^data\.train: there are no images in nowhere$"):
        base("--data", "nowhere").build()


def test_images_are_made_without_the_rest_of_the_recipe(write):
    file = write(BASE.replace("TinyOperator", "nobody.knows.Operator"))
    data = load_data(file)
    assert (data.train.path, data.train.split, data.train.channels) == ("somewhere", "train", 3)
    assert data.test.split == "test"


def test_data_in_short_moves_train_and_test(base):
    parts = base("--data.num_images", "64", "--data", "there").build()
    assert parts.data.train.path == parts.data.test.path == "there"
    assert parts.data.num_images is None
    again = base("--data", "there", "--data.test.path", "elsewhere", "--data", "here").build()
    assert (again.data.train.path, again.data.test.path) == ("here", "elsewhere")


def test_data_in_short_moves_a_resolved_recipe(base, write):
    resolved = write(base().to_yaml(), "resolved.yaml")
    parts = load(resolved, ["--data", "there"]).build()
    assert parts.data.train.path == parts.data.test.path == "there"


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


# Writing


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["--method.predictor", "TinyPredictor", "--optimization.lr", "{Cosine: {start: 1e-4, end: 0}}"],
        ["--method.student_views", "[0]", "--method.teacher_views", "[1]", "--data.test", "null"],
        [
            "--evaluation.evaluators",
            "[{TinyEvaluator: {k: 3, word: [a]}}]",
            "--optimization.freeze.backbone",
            "3 steps",
        ],
    ],
)
def test_a_resolved_recipe_is_the_same_recipe(overrides, base, write):
    recipe = base(*overrides)
    again = load(write(recipe.to_yaml(), "again.yaml"))
    assert again.resolved == recipe.resolved
    assert again.to_yaml() == recipe.to_yaml()
    assert again.identity() == recipe.identity()
    assert again.name == "some"


def test_a_resolved_recipe_holds_every_default_and_no_link(base):
    values = yaml.safe_load(base().to_yaml())
    assert values["method"]["loss"] == {"TinyLoss": {"temperature": 0.1}}
    assert values["method"]["backbone"] == {"TinyBackbone": {"width": 6, "patch_size": 4}}
    assert values["method"]["head"] == {"TinyHead": {"num_prototypes": 16, "embed_dim": 4}}
    assert values["views"]["TinyViews"]["scale"] == [0.4, 1.0]
    assert values["runtime"]["log_every"] == 10


def test_a_default_that_is_a_schedule_is_written(base, write):
    recipe = load(write(BASE.replace("{TinyTeacher: {momentum: {Cosine: {start: 0.9, end: 1}}}}", "TinyTeacher")))
    momentum = recipe.resolved["method"]["teacher"]["TinyTeacher"]["momentum"]
    assert momentum["Cosine"] == {"start": 0.9, "end": 1.0, "warmup": "0 steps", "warmup_from": 0.0, "every": "step"}
    again = load(write(recipe.to_yaml())).build().method.teacher.momentum
    assert again(Clock(3, 10)) == Cosine(0.9, 1.0)(Clock(3, 10))


def test_jsonargparse_form_is_understood(base, write):
    text = BASE.replace("{TinyBackbone: {width: 6}}", "{class_path: TinyBackbone, init_args: {width: 6}}")
    assert load(write(text)).resolved == base().resolved


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


def test_a_name_can_be_written(write):
    assert load(write("name: my-run\n" + BASE)).name == "my-run"


# Weights to start from


AFRESH = {"network": None, "partial": [], "heads": False, "fingerprint": None}


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
