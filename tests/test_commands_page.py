"""docs/commands.md is what the parsers say now."""

import runpy
from pathlib import Path

from sslkit.cli.main import program_with_commands

FILE = Path(__file__).parents[1] / "docs/commands.md"
PAGE = Path(__file__).with_name("commands_page.py")


def test_the_page_is_up_to_date():
    made = runpy.run_path(str(PAGE))["page"]()
    assert FILE.read_text(encoding="utf-8") == made, "run: python tests/commands_page.py > docs/commands.md"


def test_every_option_of_every_command_is_on_it():
    text = FILE.read_text(encoding="utf-8")
    for name, parser in program_with_commands().commands().items():
        part = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert part, name
        for option in {*parser.options()} - {"--help", "--plugin", "--allow"}:
            assert f"`{option}" in part, (name, option)
