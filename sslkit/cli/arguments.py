"""The words after a command: a recipe, a few options, and overrides of any key."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from sslkit.errors import SSLKitError
from sslkit.plugins import active
from sslkit.recipe.files import builtin_recipes


@dataclass
class RecipeArguments:
    """A command line that names a recipe.

    Args:
        recipe: its name or file.
        options: the command's own options that were given; a flag's value is empty.
        overrides: the other words, ``--section.key value``.
    """

    recipe: str = ""
    options: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


def read_recipe_arguments(
    words: Sequence[str], command: str, options: Collection[str] = (), flags: Collection[str] = ()
) -> RecipeArguments:
    """Tell a command's own options from overrides.

    Raises:
        SSLKitError: there is no recipe, more than one, or an option without its value.
    """
    found = RecipeArguments()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if word.replace("_", "-") in flags:
            found.options[word.replace("_", "-")] = ""
        elif name in options:
            found.options[name] = value if equals else _value(rest, name)
        elif word.startswith("-"):
            found.overrides += [word] if equals else [word, _value(rest, word)]
        elif found.recipe:
            raise SSLKitError(f"sslkit {command} takes one recipe, not {found.recipe!r} and {word!r}")
        else:
            found.recipe = word
    if not found.recipe:
        choices = ", ".join(builtin_recipes()) or "none"
        raise SSLKitError(f"sslkit {command} needs a recipe: a YAML file or a name. Names: {choices}.")
    return found


def take_option(words: list[str], name: str) -> list[str]:
    """Remove every ``name VALUE`` and ``name=VALUE`` from the words and return the values.

    Raises:
        SSLKitError: an option without its value.
    """
    values, rest = [], list(words)
    words.clear()
    while rest:
        word = rest.pop(0)
        if word == name:
            values.append(_value(rest, name))
        elif word.startswith(f"{name}="):
            values.append(word.removeprefix(f"{name}="))
        else:
            words.append(word)
    return values


def plugin_words() -> list[str]:
    """Return the words that offer the plugin files of this command to another one."""
    return [word for plugin in active().found if plugin.is_file for word in ("--plugin", plugin.name)]


def _value(rest: list[str], name: str) -> str:
    if not rest or rest[0].startswith("--"):
        raise SSLKitError(f"{name} needs a value")
    return rest.pop(0)
