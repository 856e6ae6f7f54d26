"""Recipe files: found, overlaid, read as YAML that means the same with every release."""

from pathlib import Path

import pytest

from sslkit.errors import RecipeError, UnknownName
from sslkit.recipe import load
from sslkit.recipe.files import builtin_recipes
from sslkit.recipe.layers import read_overrides

BASE = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["1e-3", "1E3", "1.5e+2", "-.5", "3.", "+1.0", ".inf"])
def test_numbers_are_numbers(text, base):
    assert base("--method.loss.temperature", text).root.at("method.loss.temperature") == float(
        text.replace(".inf", "inf")
    )


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


@pytest.mark.parametrize("base", ["5", "[quickstart]", "{a: 1}", "true", "1.5"])
def test_a_base_is_text(base, write):
    with pytest.raises(RecipeError, match=r"base is the name or the file of a recipe, not .* \(.*some\.yaml\)$"):
        load(write(f"base: {base}\n"))


@pytest.mark.parametrize("name", ["~no-such-user/x.yaml", f"{'x' * 300}.yaml", "x\0.yaml", f"{'x/' * 3000}x.yml"])
def test_a_path_that_no_file_can_have_is_refused(name):
    with pytest.raises(RecipeError, match="there is no recipe file ") as refused:
        load(name)
    assert str(refused.value).index(". Built-in recipes: ") < 150


def test_a_file_is_read_no_further_than_recipes_go(write):
    with pytest.raises(RecipeError, match=r"some\.yaml cannot be read: a recipe has at most 100,000 bytes"):
        load(write("x: '" + "y" * 2_000_000 + "'\n"))


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
        ("seed: 1\nseed: 2\n", "some.yaml:2: the key 'seed' appears twice"),
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
        "seed: 1\ny: {=: text, <<: {}}\n",
    ],
)
def test_merge_keys_are_refused_wherever_they_stand(text, write):
    file = write(text)
    with pytest.raises(RecipeError, match=r"some\.yaml:2: the merge key << .* write base: NAME .* or repeat the keys$"):
        load(file)
    with pytest.raises(RecipeError, match=r"some\.yaml:2: the merge key"):
        load(write("base: ./some.yaml\n", "over.yaml"))
    with pytest.raises(RecipeError, match=r"--x '.*':\d: the merge key << .* or repeat the keys$"):
        read_overrides(["--x", text])


def test_a_quoted_merge_key_is_a_key_like_any_other(write, base):
    assert read_overrides(["--x", "{'<<': 1, \"<<a\": 2}"])[0].values == {"x": {"<<": 1, "<<a": 2}}
    with pytest.raises(RecipeError, match="unknown key '<<'"):
        load(write(f'{BASE}"<<": {{}}\n'))
    with pytest.raises(RecipeError, match=r"unknown key 'method\.<<'"):
        base("--method", '{"<<": {}}')
