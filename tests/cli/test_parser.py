"""What is declared once is parsed, refused with one message, shown as help and found by argparse's tools."""

import argparse
from pathlib import Path

import pytest

from sslkit.cli.parser import CommandParser, path, take_option, whole
from sslkit.errors import SSLKitError, UnknownName


@pytest.fixture
def parser():
    parser = CommandParser("sslkit cook")
    parser.describe("one DISH", "what there is to eat", "sslkit cook soup", choices="soup, rice", overrides=True)
    parser.add_argument("dish", metavar="DISH", help="what to cook")
    options = parser.add_options()
    options.add_argument("--salt", metavar="N", type=whole(0), default=1, help="spoons (1)")
    options.add_argument("--to-go", action="store_true", help="in a box")
    options.add_argument("--out", metavar="FILE", type=path)
    options.add_argument("--size", metavar="NAME", choices=("small", "large"))
    parser.add_table("Dishes", "of today", lambda: [("soup", "hot")])
    return parser


def test_overrides_keep_their_values_wherever_the_positional_argument_stands(parser):
    for words in (
        ["--seed", "3", "soup", "--salt=2", "--to-go", "--a.b=c", "--x.y", "-1"],
        ["soup", "--seed", "3", "--salt", "2", "--a.b=c", "--to_go", "--x.y", "-1"],
        ["--salt", "7", "--seed", "3", "--a.b=c", "--x.y", "-1", "--to-go", "soup", "--salt", "2"],
    ):
        args = parser.parse(words)
        assert (args.dish, args.salt, args.to_go, args.out, args.help) == ("soup", 2, True, None, False)
        assert args.overrides == ["--seed", "3", "--a.b=c", "--x.y", "-1"]


def test_values_may_look_like_anything_but_an_option(parser):
    args = parser.parse(["soup", "--out=--here", "--a", "", "--b=", "--size", "large"])
    assert (args.out, args.size) == (Path("--here"), "large")
    assert args.overrides == ["--a", "", "--b="]
    assert parser.parse(["soup", "--out", "~/x"]).out == Path.home() / "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "sslkit cook takes one DISH, not nothing. Choices: soup, rice."),
        (["soup", "rice"], "sslkit cook takes one DISH, not 'soup' and 'rice'"),
        (["soup", "--salt"], "--salt needs a value"),
        (["soup", "--to-go=false"], "--to-go takes no value; leave out '=false'"),
        (["soup", "--salt", "--to-go"], "--salt needs a value"),
        (["soup", "--a.b"], "--a.b needs a value"),
        (["soup", "--salt", "-1"], "--salt must be a whole number of at least 0, not '-1'"),
        (["soup", "--salt", "1.5"], "--salt must be a whole number of at least 0, not '1.5'"),
        (["soup", "--size", "lage"], "--size: unknown size 'lage'. Did you mean 'large'?"),
    ],
)
def test_a_mistake_is_one_message(parser, words, message):
    with pytest.raises(SSLKitError) as raised:
        parser.parse(words)
    assert str(raised.value).startswith(message)


def test_without_overrides_an_unknown_option_is_refused(parser):
    parser.describe("one DISH")
    with pytest.raises(UnknownName, match=r"unknown option '--sal'\. Did you mean '--salt'\?"):
        parser.parse(["soup", "--sal", "3"])
    # Nothing is guessed from a beginning.
    with pytest.raises(UnknownName, match="unknown option '--to'"):
        parser.parse(["soup", "--to"])


def test_help_is_given_whatever_else_is_wrong(parser):
    for words in (["--help"], ["a", "b", "-h"], ["--salt", "x", "--help"]):
        assert parser.parse(words).help
    assert parser.parse(["soup", "-h", "rice"]).positional == ["soup", "rice"]


def test_a_key_is_asked_about_without_a_positional_argument(parser):
    parser.describe("one DISH", overrides=True, key_help=True)
    assert parser.parse(["--a.b.help", "NAME"]).key_help == ["--a.b.help", "NAME"]
    assert parser.parse(["--x", "1", "--a.help"]).key_help == ["--a.help"]
    assert parser.parse(["soup", "--x", "1"]).key_help == []


def test_positional_arguments_may_be_optional_or_many():
    listing, many = CommandParser("sslkit list"), CommandParser("sslkit look")
    for name in ("kind", "name"):
        listing.add_argument(name, metavar=name.upper(), nargs="?")
    many.add_argument("runs", metavar="RUN", nargs="+", type=path)
    assert vars(listing.parse(["a"])).items() >= {"kind": "a", "name": None}.items()
    assert many.parse(["a", "b", "c"]).runs == [Path("a"), Path("b"), Path("c")]
    assert listing.usage_line() == "sslkit list [KIND] [NAME]"
    assert many.usage_line() == "sslkit look RUN ..."
    for parser, words in ((listing, ["a", "b", "c"]), (many, [])):
        with pytest.raises(SSLKitError, match="takes no argument, not"):
            parser.parse(words)


def test_help_shows_what_is_declared_in_its_order(parser, capsys):
    parser.print_help()
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "sslkit cook DISH  what there is to eat",
        "",
        "Options",
        "  --salt N     spoons (1)",
        "  --to-go      in a box",
        "  --out FILE",
        "  --size NAME",
        "",
        "Dishes  of today",
        "  soup  hot",
        "",
        "Examples",
        "  sslkit cook soup",
    ]


def test_it_is_an_argparse_parser(parser):
    assert isinstance(parser, argparse.ArgumentParser)
    assert "--salt" in parser.format_help()
    assert parser.parse_args(["soup"]).salt == 1


def test_an_option_is_taken_out_of_a_command_line():
    rest = ["a", "--x", "1", "b", "--x=2", "--xy", "3"]
    assert (take_option(rest, "--x"), rest) == (["1", "2"], ["a", "b", "--xy", "3"])
    with pytest.raises(SSLKitError, match="--x needs a value"):
        take_option(["--x"], "--x")
