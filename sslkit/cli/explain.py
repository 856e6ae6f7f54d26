"""``sslkit explain``: what a recipe will do, without running it."""

from collections.abc import Sequence
from pathlib import Path

from sslkit.cli.arguments import read_recipe_arguments
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError

OPTIONS = {
    "--num-images N": "count with N training images",
    "--processes N": "count with N processes that train together (1)",
    "--apply FILE": "write what is proposed as a recipe over this one; FILE must be new",
    "--SECTION.KEY VALUE": "set any key of the recipe first, as sslkit train does",
}

EXAMPLES = """\
sslkit explain dino-vit-small --processes 16
sslkit explain dino-vit-small --data ~/photos --optimization.batch_size 128 --apply photos.yaml"""


def run(argv: Sequence[str]) -> int:
    """Explain a recipe."""
    if any(word in ("-h", "--help") for word in argv):
        _help()
        return 0
    words = read_recipe_arguments(argv, "explain", options=("--num-images", "--processes", "--apply"))
    num_images, processes = (_count(words.options, name) for name in ("--num-images", "--processes"))
    apply = words.options.get("--apply")
    from sslkit.cli.explanation import ExplainOptions, explain
    from sslkit.recipe import load

    options = ExplainOptions(num_images, processes or 1, Path(apply).expanduser() if apply else None)
    explain(load(words.recipe, words.overrides), [words.recipe, *words.overrides], options)
    return 0


def _count(options: dict[str, str], name: str) -> int | None:
    text = options.get(name, "")
    if text and not (text.isdecimal() and int(text)):
        raise SSLKitError(f"{name} is a whole number above 0, not {text!r}")
    return int(text) if text else None


def _help() -> None:
    purpose = "what a recipe will do and what it will cost, without running it"
    Screen().help("sslkit explain RECIPE", purpose, ("Options", "", OPTIONS.items()), examples=EXAMPLES)
