"""What a run measured, as one small table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NETWORKS = ("teacher", "student")
SEVERAL = "raw-pixels"


def show_results(results: Sequence[Mapping[str, Any]], num_classes: int | None, console: Console) -> None:
    """Print the last figures of every network, baselines first, one table an evaluator and protocol."""
    for evaluator, protocol in dict.fromkeys((row["evaluator"], row["protocol"]) for row in results):
        rows = [row for row in results if (row["evaluator"], row["protocol"]) == (evaluator, protocol)]
        last = {row["network"]: row["metrics"] for row in rows}
        metrics = list(dict.fromkeys(name for numbers in last.values() for name in numbers))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("features of")
        for name in metrics:
            table.add_column(name.removeprefix(f"{evaluator}/"), justify="right")
        if num_classes:
            table.add_row("chance", *(_chance(name, num_classes) for name in metrics), style="dim")
        for name, numbers in _with_best_variant(last).items():
            style = "bold green" if name in NETWORKS else ""
            table.add_row(Text(name, style), *(_cell(numbers.get(metric), style) for metric in metrics))
        console.print(f"[bold]{evaluator} on {rows[-1]['dataset']}[/], in percent  [dim]{protocol}[/]", highlight=False)
        console.print(table)


def _with_best_variant(last: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """Return the rows with the variants of one baseline made one row: the best of them, metric by metric."""
    variants = [numbers for name, numbers in last.items() if name.startswith(SEVERAL)]
    shown: dict[str, Mapping[str, float]] = {}
    if variants:
        shown["raw pixels, best variant"] = {k: max(v[k] for v in variants) for k in variants[0]}
    shown |= {name: numbers for name, numbers in last.items() if not name.startswith((SEVERAL, *NETWORKS))}
    return shown | {name: last[name] for name in NETWORKS[::-1] if name in last}


def _chance(metric: str, num_classes: int) -> str:
    """Return what guessing scores: k of the classes for ``top<k>``."""
    _, found, rest = metric.partition("/top")
    guesses = "".join(_leading_digits(rest)) if found else ""
    return f"{min(100.0, 100 * int(guesses) / num_classes):.1f}" if guesses else ""


def _leading_digits(text: str) -> Iterable[str]:
    for character in text:
        if not character.isdigit():
            return
        yield character


def _cell(value: float | None, style: str) -> Text:
    return Text("" if value is None else f"{value:.1f}", style)
