"""The YAML of recipes: what is read, and what is refused by name before it costs time or memory."""

import random
import time

import pytest
import yaml

from sslkit.errors import RecipeError
from sslkit.recipe.yaml_subset import MAX_BYTES, MAX_DEPTH, MAX_TEXT, MAX_VALUES, parse_yaml

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n"
    for below, name in zip("abcdefghij", "bcdefghijk", strict=True)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 100))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-12", -12),
        ("1_000", 1000),
        ("1e-3", 0.001),
        ("1.", 1.0),
        ("-.inf", float("-inf")),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("off", "off"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("2024-13-45", "2024-13-45"),
        ("2024-01-05", "2024-01-05"),
        ("1:30", "1:30"),
        ("0123", "0123"),
        ("0x10", "0x10"),
        ("0b11", "0b11"),
        ("=", "="),
        (f"{2**63}", 2**63),
        ("[1, {a: 2}]", [1, {"a": 2}]),
        ("{1: a, 01: b, null: c, true: d, 1.5: e}", {"1": "a", "01": "b", "null": "c", "true": "d", "1.5": "e"}),
        ("{a: &x [1], b: *x, c: [*x, *x]}", {"a": [1], "b": [1], "c": [[1], [1]]}),
    ],
)
def test_values(text, value):
    found = parse_yaml(text, "some.yaml")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["1e400", "-1E+999"])
def test_a_number_too_large_for_a_float_is_infinite(text):
    assert abs(parse_yaml(text, "some.yaml")) == float("inf")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!int x", "the tag !!int is not read"),
        ("a: !!timestamp 2024-13-45", "the tag !!timestamp is not read"),
        ("a: !!python/object/apply:os.system [ls]", "the tag !!python/object/apply:os.system is not read"),
        ("a: !!set {b}", "the tag !!set is not read"),
        ("a: !mine {b: 1}", "the tag !mine is not read"),
        (f"a: {2**64}", "at most 64 bits"),
        (f"a: -{2**70}", "at most 64 bits"),
        ("a: " + "9" * 4000, "at most 64 bits"),
        ("[1]: 2", "a key is text, not a sequence"),
        ("{a: 1}: 2", "a key is text, not a mapping"),
        (r'a: "b\0c"', "a text has no NUL character"),
        (r'"b\0c": 1', "a text has no NUL character"),
        ("{1: a, '1': b}", "the key '1' appears twice"),
        ("[" * 3000, "32 levels"),
        ("{" * 3000, "32 levels"),
        ("- " * 3000 + "x", "32 levels"),
        ("\n".join(" " * i + "a:" for i in range(100)), "32 levels"),
        ("[" + "1," * MAX_VALUES + "]", "10,000 values"),
        ("a: '" + "x" * (MAX_TEXT + 1) + "'", "a text has at most 4,096 characters, not 4,097"),
        (BOMB, "10,000 values"),
        (CHAIN, "32 levels"),
        ("a: &a [*a]", "an alias stands inside the value that it repeats"),
        ("&a {b: [1, {c: *a}]}", "an alias stands inside the value that it repeats"),
        ("a: *b", "undefined alias"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: [1", "not valid YAML"),
    ],
)
def test_what_recipes_do_not_allow_is_refused(text, problem):
    begun = time.process_time()
    with pytest.raises(RecipeError) as refused:
        parse_yaml(text, "some.yaml")
    assert problem in str(refused.value)
    assert str(refused.value).startswith("some.yaml")
    assert len(str(refused.value)) < 250
    assert "\n" not in str(refused.value)
    # Seconds of this process, far above what is needed: what is refused here took minutes or all memory.
    assert time.process_time() - begun < 20


def test_the_line_is_named_where_there_are_several():
    with pytest.raises(RecipeError, match=r"^some\.yaml:3: the tag !!int"):
        parse_yaml("a: 1\nb: 2\nc: !!int 3\n", "some.yaml")
    with pytest.raises(RecipeError, match=r"^--x 'y': the tag"):
        parse_yaml("!!int 3", "--x 'y'")


@pytest.mark.parametrize("text", [b"seed: 1 # caf\xe9", b"\xff\xfe\x00", "seed: \x00", "a: \ud800"])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(RecipeError, match=r"some\.yaml cannot be read: a recipe is text in UTF-8 \(.*\)$"):
        parse_yaml(text, "some.yaml")


def test_long_documents_are_not_parsed():
    with pytest.raises(RecipeError, match=r"some\.yaml cannot be read: a recipe has at most 100,000 bytes"):
        parse_yaml(b"#" * (MAX_BYTES + 1), "some.yaml")


def test_random_plain_data_is_read_as_it_was_written():
    drawn = random.Random(0)

    def value(level):
        kind = drawn.randrange(8 if level < MAX_DEPTH // 4 else 6)
        if kind == 6:
            return [value(level + 1) for _ in range(drawn.randrange(4))]
        if kind == 7:
            return {f"key{i}": value(level + 1) for i in range(drawn.randrange(4))}
        number = drawn.randrange(-(10**6), 10**6)
        return [number, number / 1e9, f"{number}", drawn.choice(["1:30", "yes", "0123", "", "a\nb", "é"]), None, True][
            kind
        ]

    for _ in range(50):
        data = {"data": value(0)}
        assert parse_yaml(yaml.safe_dump(data), "some.yaml") == data
