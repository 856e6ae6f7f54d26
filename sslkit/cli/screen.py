"""Print headings, columns and text at the width of the terminal."""

from collections.abc import Iterable

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

MAX_WIDTH = 110


class Screen:
    """Standard output as headings, aligned columns and indented text, no wider than is pleasant to read."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._console.width = min(self._console.width, MAX_WIDTH)

    def heading(self, text: str, note: str = "") -> None:
        """Print a heading with a quiet note after it."""
        self._console.print(Text.assemble((text, "bold"), ("  " + note if note else "", "dim")))

    def text(self, text: str | Text) -> None:
        """Print indented text, wrapped."""
        self._console.print(Padding(text if isinstance(text, Text) else Text(text), (0, 0, 0, 2), expand=False))

    def columns(self, rows: Iterable[Iterable[str | Text]], styles: Iterable[str] = ("cyan", "", "dim")) -> None:
        """Print rows as aligned columns; the first is not wrapped. No rows are printed as ``none``."""
        listed = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
        if not listed:
            self.text("none")
            return
        used = [i for i in range(max(map(len, listed))) if any(row[i : i + 1] and row[i].plain for row in listed)]
        table = Table.grid(padding=(0, 2, 0, 0))
        for i, style in enumerate(styles):
            if i in used:
                table.add_column(style=style, no_wrap=i == 0, overflow="fold")
        for row in listed:
            table.add_row(*(row[i] for i in used if i < len(row)))
        self._console.print(Padding(table, (0, 0, 0, 2), expand=False))

    def code(self, text: str) -> None:
        """Print lines to be copied, indented and not wrapped."""
        for line in text.splitlines():
            self._console.print(f"  {line}", soft_wrap=True, markup=False)

    def help(
        self, title: str, note: str, *parts: tuple[str, str, Iterable[Iterable[str | Text]]], examples: str
    ) -> None:
        """Print what a command is for.

        Args:
            title: how it is called.
            note: what it does.
            parts: heading, note and rows of each part.
            examples: calls of it, a line each.
        """
        self.heading(title, note)
        for name, remark, rows in parts:
            self.gap()
            self.heading(name, remark)
            self.columns(rows)
        self.gap()
        self.heading("Examples")
        self.code(examples)

    def gap(self) -> None:
        """Print an empty line."""
        self._console.print()
