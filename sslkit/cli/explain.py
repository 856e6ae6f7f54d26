"""``sslkit explain``: what a recipe will do, without running it."""

from collections.abc import Sequence

from sslkit.cli.arguments import read_recipe_arguments
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError

OPTIONS = {
    "--num-images N": "count with N training images, where they are not at hand",
    "--SECTION.KEY VALUE": "set any key of the recipe first, as sslkit train does",
}


def run(argv: Sequence[str]) -> int:
    """Explain a recipe."""
    if any(word in ("-h", "--help") for word in argv):
        screen = Screen()
        screen.heading("sslkit explain RECIPE", "what a recipe will do, without running it")
        screen.columns(OPTIONS.items())
        return 0
    words = read_recipe_arguments(argv, "explain", options=("--num-images",))
    count = words.options.get("--num-images", "")
    if count and not (count.isdigit() and int(count)):
        raise SSLKitError(f"--num-images is a whole number above 0, not {count!r}")
    from sslkit.cli.explanation import explain
    from sslkit.recipe import load

    explain(load(words.recipe, words.overrides), int(count) if count else None)
    return 0
