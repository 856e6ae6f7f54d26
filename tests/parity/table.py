"""Print the table of docs/parity.md: the worst error of each quantity of each trace.

python tests/parity/table.py
"""

import sys
from pathlib import Path

import pytest

HEADER = "| trace | quantity | comparisons | worst error | allowed |\n| --- | --- | --- | --- | --- |"


class Table:
    """A pytest plugin that prints what the `agrees` fixture has kept."""

    def pytest_terminal_summary(self, terminalreporter, config):
        worst: dict[tuple[str, str], list] = {}
        for trace, quantity, error, tolerance in config.compared:
            count, most, allowed = worst.get((trace, quantity), (0, 0.0, 0.0))
            worst[trace, quantity] = [count + 1, max(most, error), max(allowed, tolerance)]
        terminalreporter.write_line(HEADER)
        for (trace, quantity), (count, most, allowed) in sorted(worst.items()):
            terminalreporter.write_line(f"| {trace} | {quantity} | {count} | {most:.1e} | {allowed:.0e} |")


if __name__ == "__main__":
    sys.exit(pytest.main([str(Path(__file__).parent), "-q"], plugins=[Table()]))
