"""``sslkit explain``: report what a recipe will do, without running it."""

from argparse import Namespace

from sslkit.cli.arguments import add_recipe
from sslkit.cli.parser import CommandParser, path, whole
from sslkit.progress import loading

EXAMPLES = """\
sslkit explain dino-vit-small --processes 16
sslkit explain dino-vit-small --data ~/photos --optimization.batch_size 128
sslkit explain dino-vit-small --data ~/photos --apply photos.yaml"""


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    purpose = "what a recipe will do and what it will cost, without running it"
    add_recipe(parser, purpose, EXAMPLES)
    options = parser.add_options()
    options.add_argument("--num-images", metavar="N", type=whole(1), help="count with N training images")
    options.add_argument(
        "--processes", metavar="N", type=whole(1), default=1, help="count with N processes that train together (1)"
    )
    options.add_argument(
        "--apply", metavar="FILE", type=path, help="write what is proposed as a recipe over this one; FILE must be new"
    )
    parser.add_table("Recipe keys", "", lambda: [("--SECTION.KEY VALUE", "set any key first, as sslkit train does")])


def run(args: Namespace) -> int:
    """Explain a recipe."""
    with loading():
        from sslkit.cli.explanation import ExplainOptions, explain
        from sslkit.recipe.loading import load

    options = ExplainOptions(args.num_images, args.processes, args.apply)
    explain(load(args.recipe, args.overrides), [args.recipe, *args.overrides], options)
    return 0
