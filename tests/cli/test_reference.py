"""docs/commands.md is what the parsers say now."""

from pathlib import Path

from sslkit.cli.main import program_with_commands
from sslkit.cli.reference import page

FILE = Path(__file__).parents[2] / "docs/commands.md"


def test_the_page_is_up_to_date():
    assert FILE.read_text(encoding="utf-8") == page(), "python -m sslkit.cli.reference > docs/commands.md"


def test_every_option_of_every_command_is_on_it():
    text = FILE.read_text(encoding="utf-8")
    for name, parser in program_with_commands().commands().items():
        part = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert part, name
        for option in {*parser.options()} - {"--help", "--plugin"}:
            assert f"`{option}" in part, (name, option)
