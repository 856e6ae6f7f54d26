"""Arguments that several commands share: a recipe with overrides, and plugin files."""

from sslkit.cli.parser import CommandParser
from sslkit.plugins import active
from sslkit.recipe.files import builtin_recipes


def add_recipe(parser: CommandParser, note: str, examples: str, *, key_help: bool = False) -> None:
    """Declare a command that takes a recipe and overrides of its keys.

    Args:
        parser: of the command.
        note: what the command does.
        examples: calls of it.
        key_help: whether ``--KEY.help`` asks what a key takes.
    """
    names = ", ".join(builtin_recipes()) or "none"
    takes = "one RECIPE, a YAML file or a name"
    parser.describe(takes, note, examples, choices=names, overrides=True, key_help=key_help)
    parser.add_argument("recipe", metavar="RECIPE", help="a name (sslkit list recipes) or a YAML file")


def plugin_words() -> list[str]:
    """Return the words that give another command the plugin files and the allowed modules of this one."""
    files = [plugin.name for plugin in active().found if plugin.is_file]
    given = [("--plugin", file) for file in files] + [("--allow", module) for module in active().registry.allowed]
    return [word for pair in given for word in pair]
