"""What several commands share."""

from pathlib import Path

import pytest

from sslkit import plugins
from sslkit.cli.arguments import add_recipe, plugin_words
from sslkit.cli.parser import CommandParser
from sslkit.errors import SSLKitError

TINY = Path(__file__).parents[1] / "tiny_parts.py"


def test_a_command_takes_a_recipe_and_overrides():
    parser = CommandParser("sslkit cook")
    add_recipe(parser, "what it does", "sslkit cook quickstart", key_help=True)
    args = parser.parse(["--seed", "3", "quickstart"])
    assert (args.recipe, args.overrides) == ("quickstart", ["--seed", "3"])
    assert parser.parse(["--seed.help"]).key_help == ["--seed.help"]
    with pytest.raises(SSLKitError, match=r"sslkit cook takes one RECIPE, .*Choices: .*quickstart"):
        parser.parse([])


def test_plugin_files_are_offered_to_the_next_command_too():
    assert plugin_words() == []
    with plugins.using([str(TINY)]):
        assert plugin_words() == ["--plugin", str(TINY)]
    with plugins.using([str(TINY)], ["mine", "other.place"]):
        assert plugin_words() == ["--plugin", str(TINY), "--allow", "mine", "--allow", "other.place"]
