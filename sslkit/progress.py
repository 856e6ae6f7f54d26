"""Progress of long work: who does it reports it here, and the display in use shows it; without one nothing is shown.

Only `rich` is imported, so that a command can say what it does before PyTorch is there.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

SECONDS_TO_FIRST_LINE, SECONDS_BETWEEN_LINES = 2.0, 10.0
"""Where there is no terminal."""
SECONDS_BETWEEN_UPDATES = 0.1


class Work:
    """A piece of work in progress, of which ``advance`` reports what is done.

    Args:
        display: where it is shown.
        name: what is done.
        total: how many items there are, or None if not known.
        completed: items that were done before.
    """

    def __init__(self, display: "WorkDisplay", name: str, total: int | None, completed: int) -> None:
        self.display, self.name, self.total, self.first, self.completed = display, name, total, completed, completed
        self.start = self.updated = time.monotonic()
        self.task = display.progress.add_task(name, total=total, completed=completed, numbers="")

    def advance(self, items: int) -> None:
        """Add items to those that are done."""
        self.completed += items
        now = time.monotonic()
        # A million files are indexed in seconds: most of them change nothing on the screen.
        if now - self.updated >= SECONDS_BETWEEN_UPDATES:
            self.updated = now
            self.show(completed=self.completed, numbers="" if self.total else f"{self.completed:,}")
            self.display.line(now, self._line)

    def show(self, name: str | None = None, completed: int | None = None, numbers: str | None = None) -> None:
        """Change the live line; None leaves a part of it as it is."""
        fields: dict[str, Any] = {} if numbers is None else {"numbers": numbers}
        self.display.progress.update(self.task, description=name, completed=completed, **fields)

    def left(self, completed: int) -> timedelta:
        """Return the time that the rest takes if it goes on as before, in seconds."""
        done = max(1, completed - self.first)
        return timedelta(seconds=round((time.monotonic() - self.start) / done * ((self.total or 0) - completed)))

    def _line(self) -> str:
        if not self.total:
            return f"{self.name} · {self.completed:,}"
        return f"{self.name} · {self.completed:,} of {self.total:,} · {self.left(self.completed)} left"


class WorkDisplay:
    """A console that shows work in progress: a live line for each in a terminal, plain lines elsewhere.

    Args:
        console: where to write.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.is_live = console, console.is_terminal and not console.quiet
        self.next_line = time.monotonic() + SECONDS_TO_FIRST_LINE
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24 if console.width >= 96 else 8),
            TaskProgressColumn("{task.percentage:>3.0f} %", text_format_no_percentage=""),
            TextColumn("{task.fields[numbers]}", style="cyan"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self.is_live,
        )

    @contextmanager
    def work(self, name: str, total: int | None = None, completed: int = 0) -> Iterator[Work]:
        """Show a piece of work inside the block; the arguments are those of `Work`."""
        # The live line is there only while there is work: a console has room for that of one display.
        if self.is_live and not self.progress.tasks:
            self.progress.start()
        work = Work(self, name, total, completed)
        try:
            yield work
        finally:
            self.progress.remove_task(work.task)
            if self.is_live and not self.progress.tasks:
                self.progress.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        print_line(self.console, text)

    def line(self, now: float, text: Callable[[], str]) -> None:
        """Print a plain line where there is no terminal and it is time for one."""
        if not self.is_live and now >= self.next_line:
            self.next_line = now + SECONDS_BETWEEN_LINES
            self.say(text())


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print text that is to be read: wrapped at words in a terminal, one line elsewhere."""
    console.print(Text(text, style), soft_wrap=not console.is_terminal)


_display: ContextVar[WorkDisplay | None] = ContextVar("display", default=None)
_stage: ContextVar[str] = ContextVar("stage", default="")


@contextmanager
def showing(console: Console) -> Iterator[WorkDisplay]:
    """Show the work inside the block on a console."""
    display = WorkDisplay(console)
    token = _display.set(display)
    try:
        yield display
    finally:
        _display.reset(token)


def say(text: str) -> None:
    """Print a line that stays on the display in use."""
    if (display := _display.get()) is not None:
        display.say(text)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Put ``name`` before the names of the work inside the block."""
    token = _stage.set(f"{name} · ")
    try:
        yield
    finally:
        _stage.reset(token)


@contextmanager
def working(name: str, *, plain: bool = True) -> Iterator[None]:
    """Show work whose length is not known.

    Args:
        name: what is done.
        plain: whether a line says so at once where there is no terminal.
    """
    display = _display.get()
    if display is None:
        yield
        return
    if plain and not display.is_live:
        display.say(f"{name} ...")
    with display.work(name):
        yield


def track(
    items: Iterable[T], name: str, total: int | None = None, size: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yield the items and show how many are done.

    Args:
        items: what is worked on.
        name: what is done with them.
        total: how many there are, or None if not known.
        size: how many an item counts for, such as the images of a batch.
    """
    display = _display.get()
    if display is None:
        yield from items
        return
    with display.work(_stage.get() + name, total) as work:
        for item in items:
            yield item
            work.advance(size(item))


@contextmanager
def loading() -> Iterator[None]:
    """Show, where PyTorch is not imported yet, that the imports inside the block take seconds."""
    if "torch" in sys.modules:
        yield
        return
    with working("loading PyTorch"):
        yield
