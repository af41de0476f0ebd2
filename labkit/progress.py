"""Progress of long work, on stderr: a bar per stage on a terminal or in a notebook, else a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Step:
    """A running stage of the work; this one shows nothing."""

    def note(self, text: str) -> None:
        """Show what is being done now."""

    def fraction(self, done: float) -> None:
        """Show the part of the stage that is done, from 0 to 1."""


class Progress:
    """Progress that shows nothing: for tests and quiet callers."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Step]:
        """Run the body as one stage of the work, under a title."""
        yield Step()

    def say(self, text: str) -> None:
        """Show a message that belongs to no stage."""


class _BarStep(Step):
    def __init__(self, bar: object, task: object, title: str) -> None:
        from rich.progress import Progress as Bar

        assert isinstance(bar, Bar)
        self._bar, self._task, self._title = bar, task, title

    def note(self, text: str) -> None:
        self._bar.update(self._task, note=text[:40])  # type: ignore[arg-type]

    def fraction(self, done: float) -> None:
        self._bar.update(self._task, total=1.0, completed=done)  # type: ignore[arg-type]


class Bars(Progress):
    """Progress as one bar per stage on a terminal or in a notebook; elsewhere as one line per stage."""

    def say(self, text: str) -> None:
        """Write a line to stderr."""
        print(f"labkit: {text}", file=sys.stderr)

    @contextmanager
    def stage(self, title: str) -> Iterator[Step]:
        """Run the body as one stage; a line is written when it has ended, with its seconds."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        began = time.monotonic()
        if not (console.is_terminal or console.is_jupyter):
            yield Step()
            console.print(f"{title}: {time.monotonic() - began:.1f} s", highlight=False)
            return
        columns = (
            TextColumn("{task.description:<44}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(title, total=None, note="")
            yield _BarStep(bar, task, title)
            bar.update(task, total=1.0, completed=1.0, note="")
