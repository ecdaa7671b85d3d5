"""What a run tells whoever watches it: a bar with time left on a terminal, else a line every 30 seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

#: Seconds between two lines where there is no terminal.
LINE_EVERY_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """State of a run after an update.

    Attributes:
        updates, total: done, and of the whole run.
        epoch, epochs: being trained, from 0, and of the whole run.
        loss: `loss/total` of the update.
        samples_per_s: of all processes, over the last updates.
        waiting_share: of the time that this process waited for samples, 0..1.
        seconds_left: from this start's average, source validation included; None before there is one.
    """

    updates: int
    total: int
    epoch: int
    epochs: int
    loss: float
    samples_per_s: float
    waiting_share: float
    seconds_left: float | None


class Reporter(Protocol):
    """Who is told."""

    def updated(self, report: Report) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Tells nobody. Implements `Reporter`."""

    def updated(self, report: Report) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class ConsoleReporter:
    """On stderr. Implements `Reporter`; a context manager, which takes the bar away."""

    def __init__(self, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._last_line = float("-inf")
        self._bar = Progress(TextColumn("updates"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                             console=self._console, transient=True, disable=not self._console.is_terminal)
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._bar.stop()

    def updated(self, report: Report) -> None:
        """Moves the bar, or prints a line when it is time."""
        if self._console.is_terminal:
            self._bar.start()  # with the first update: processes without any have no bar
            self._bar.update(self._task, completed=report.updates, total=report.total, description=described(report))
        elif self._clock() - self._last_line >= LINE_EVERY_S:
            self._last_line = self._clock()
            self.note(f"update {report.updates} of {report.total}, {described(report)}")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def described(report: Report) -> str:
    """One line on a report."""
    left = "" if report.seconds_left is None else f", {duration(report.seconds_left)} left"
    return (f"epoch {report.epoch + 1}/{report.epochs}, loss {report.loss:.4f}, {report.samples_per_s:.1f} samples/s, "
            f"waiting {report.waiting_share:.0%}{left}")


def duration(seconds: float) -> str:
    """`3 h 05 min`, `4 min 10 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"
