"""``sslkit schema``: a JSON schema of recipes, with which editors check and complete them."""

import json
from argparse import Namespace

from sslkit.cli.parser import CommandParser, path
from sslkit.errors import SSLKitError
from sslkit.plugins import active
from sslkit.progress import loading

EXAMPLES = """\
sslkit schema --output sslkit.schema.json
sslkit schema --plugin my_operator.py --output sslkit.schema.json"""

USES = {
    "one file": "a first line: # yaml-language-server: $schema=sslkit.schema.json",
    "VS Code": 'settings.json: "yaml.schemas": {"./sslkit.schema.json": "recipes/*.yaml"}',
    "PyCharm": "Settings, Languages & Frameworks, Schemas and DTDs, JSON Schema Mappings",
}


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    purpose = "a JSON schema of recipes, from the components that are installed"
    parser.describe("no argument", purpose, EXAMPLES)
    parser.add_options().add_argument(
        "--output", metavar="FILE", type=path, help="write it there, in place of what was there; printed without it"
    )
    parser.add_table("How an editor uses it", "docs/recipes.md", USES.items)


def run(args: Namespace) -> int:
    """Print the schema, or write it to a file."""
    if args.output is not None and not args.output.parent.is_dir():
        raise SSLKitError(f"--output {args.output}: {args.output.parent} is not a folder")
    with loading():
        from sslkit.recipe.json_schema import json_schema
    from sslkit.run_folder.atomic_write import write_text

    text = json.dumps(json_schema(active().registry), indent=1) + "\n"
    if args.output is None:
        print(text, end="")
    else:
        write_text(args.output, text)
    return 0
