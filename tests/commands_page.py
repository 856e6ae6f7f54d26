"""Write docs/commands.md from the parsers: ``python tests/commands_page.py > docs/commands.md``."""

from collections.abc import Iterator

from sslkit.cli.main import COMMANDS, program_with_commands
from sslkit.cli.parser import CommandParser

INTRODUCTION = """\
# Commands

What `sslkit COMMAND --help` shows, on one page; made by `python tests/commands_page.py`. `--plugin FILE`, which
also offers the components of a Python file, and `--allow MODULE`, which lets recipes name classes of an installed
module by dotted path, may stand anywhere in any of them. A mistake ends with exit code 2 and one message, a run that
could not go on with 1, and one that was interrupted with 130.

The shell completes commands, options, recipes and folders after

    eval "$(sslkit completion bash)"
"""


def page() -> str:
    """Return the page as Markdown."""
    commands = program_with_commands().commands()
    return "\n".join([INTRODUCTION, *(line for name in COMMANDS for line in _command(name, commands[name]))])


def _command(name: str, parser: CommandParser) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"`{parser.usage_line()}`: {parser.description}.\n"
    for section in parser.sections:
        rows = [[str(cell) for cell in row] for row in section.rows()]
        if not any(row[1:] and row[1] for row in rows):
            yield f"{section.title}: {', '.join(f'`{row[0]}`' for row in rows)}.\n"
            continue
        yield f"| {section.title} | {section.note} |\n|---|---|"
        yield from (f"| `{first}` | {_escaped(text)} |" for first, text in rows)
        yield ""
    yield "\n".join(f"    {line}" for line in parser.examples.splitlines()) + "\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
