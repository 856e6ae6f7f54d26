"""Print the results of a run as a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

NETWORKS = ("teacher", "student")
NETWORK_HELP = "teacher or student of a run or a FILE (teacher; of a FILE the one its method evaluates)"
BACKBONE_HELP = "timm name of the network in a FILE; recognised without it (ViT, ResNet)"
SEVERAL = "raw-pixels"
BEST = "raw pixels*"


def show_results(results: Sequence[Mapping[str, Any]], num_classes: int | None, console: Console) -> None:
    """Print the last figures, a table an evaluator: a row a metric, a column a network, baselines first."""
    for evaluator, protocol in dict.fromkeys((row["evaluator"], row["protocol"]) for row in results):
        rows = [row for row in results if (row["evaluator"], row["protocol"]) == (evaluator, protocol)]
        columns = _with_best_variant({row["network"]: row["metrics"] for row in rows})
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        if num_classes:
            table.add_column("chance", justify="right", style="dim")
        for network in columns:
            table.add_column(network, justify="right", style="bold green" if network in NETWORKS else "")
        for metric in dict.fromkeys(name for numbers in columns.values() for name in numbers):
            guessed = [_chance(metric, num_classes)] if num_classes else []
            cells = (numbers.get(metric) for numbers in columns.values())
            table.add_row(metric, *guessed, *("" if value is None else f"{value:.1f}" for value in cells))
        console.print(f"[bold]{evaluator} on {rows[-1]['dataset']}[/], in percent", highlight=False)
        console.print(f"[dim]{protocol}[/]", highlight=False)
        console.print(table)
        if BEST in columns:
            console.print("[dim]* the best of plain, centered and gray-centered pixels, metric by metric[/]")


def _with_best_variant(last: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """Return the rows with the variants of one baseline made one row: the best of them, metric by metric.

    Where there is nothing but variants, each stays.
    """
    if all(name.startswith(SEVERAL) for name in last):
        return dict(last)
    variants = [numbers for name, numbers in last.items() if name.startswith(SEVERAL)]
    shown: dict[str, Mapping[str, float]] = {}
    if variants:
        shown[BEST] = {k: max(v[k] for v in variants) for k in variants[0]}
    shown |= {name: numbers for name, numbers in last.items() if not name.startswith((SEVERAL, *NETWORKS))}
    return shown | {name: last[name] for name in NETWORKS[::-1] if name in last}


def _chance(metric: str, num_classes: int) -> str:
    """Return the accuracy of guessing: k of the classes for ``top<k>``."""
    _, found, rest = metric.partition("/top")
    guesses = "".join(_leading_digits(rest)) if found else ""
    return f"{min(100.0, 100 * int(guesses) / num_classes):.1f}" if guesses else ""


def _leading_digits(text: str) -> Iterable[str]:
    for character in text:
        if not character.isdigit():
            return
        yield character
