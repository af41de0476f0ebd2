"""Answers from evidence: a lab's links to nodes that are not there.

A notebook that is run again asks the same again, so each request is looked up by its words: the place
and the argv of a command, the method, path and body of a request to a Docker engine.

- *First in the run of the same cell.* A cell may have been run often; its last run counts. Of cells
  with the same text, the notebook's own id for the cell decides, else their order.
- *In the order of then.* The same request gets its answers one after the other, and the last one again
  where it is asked more often. No thread gets an answer older than what the same thread has got, but
  for one that was asked in the same breath.
- *Then anywhere in the file*, for a cell that has changed since: in the run that follows this one, for
  what was two cells then may be one now; else the answer that was the last one at this moment of the
  recording. A cell that was not there then follows the run that its first answer is from.
- What is nowhere in the file raises `NotInEvidence`.

Nothing waits: a pause puts a clock forward.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from labkit.errors import NotInEvidence, SwarmError, redact
from labkit.evidence import cells, files
from labkit.evidence.api import content_of, request_row, response_of
from labkit.evidence.format import MAX_TEXT, describe, result_of_row
from labkit.evidence.reader import Line, read
from labkit.transport.base import Command, CommandResult, CommandRunner, ended_first
from labkit.transport.daemon import daemon

if TYPE_CHECKING:
    from docker import DockerClient
    from requests import PreparedRequest, Response

    from labkit.capture import Capture

Key = tuple[Any, ...]
_SLACK_S = 1e-3  # a started is rounded to microseconds
_BREATH_S = 2.0


def _key(kind: str, row: Mapping[str, Any]) -> Key:
    if kind == "command":
        return (kind, row["node"], row["netns"], row["pid"], *map(redact, row["argv"]))
    if kind == "api":
        body = row["body"]
        # The mark that blots a token out is escaped in JSON that is made of it.
        words = None if body is None else redact(body).replace("\\u2026", "…")
        return (kind, row["node"], row["method"], row["path"], words)
    return (kind,)


@dataclass
class _Run:
    """What one run of a cell asked, in order of asking."""

    session: str
    cell: str
    source: str
    lines: dict[Key, list[Line]] = field(default_factory=dict)
    ended: float = 0.0
    following: _Run | None = None
    """What was run next."""


class Replay:
    """The evidence of a lab, and how far a notebook that runs again has come in it."""

    def __init__(self, path: Path) -> None:
        self.evidence = read(path)
        self._lock = threading.RLock()
        self._time = threading.local()
        self._everywhere: dict[Key, list[Line]] = {}
        self._runs: dict[str, list[_Run]] = {}
        self._run_of: dict[int, _Run] = {}  # by the line's place in the file
        runs: dict[tuple[str, int, str], _Run] = {}
        last = None
        for line in sorted(self.evidence.lines, key=lambda line: line.started):
            row = line.row
            where = (row["session"], row["run"], row["source"])
            if where not in runs:
                runs[where] = _Run(row["session"], row["cell"], row["source"])
                self._runs.setdefault(row["source"], []).append(runs[where])
                if last:
                    last.following = runs[where]
                last = runs[where]
            run = self._run_of[line.at] = runs[where]
            run.ended = max(run.ended, line.ended)
            key = _key(line.kind, row)
            run.lines.setdefault(key, []).append(line)
            self._everywhere.setdefault(key, []).append(line)
        self._seen: dict[str, list[str]] = {}
        self._moment = 0.0
        self._followed: Line | None = None
        self._enter(cells.now())

    # --- which answer --------------------------------------------------------------------------

    def take(self, kind: str, row: Mapping[str, Any]) -> Line:
        """Return the line that answers a request; `done` says when its answer has been used.

        Raises NotInEvidence.
        """
        key = _key(kind, row)
        with self._lock:
            if cells.now() is not self._cell:
                self._enter(cells.now())
            here = self._here.lines.get(key) if self._here else None
            if here:
                line = here[self._next(key, here)]
            elif anywhere := self._everywhere.get(key):
                line = anywhere[self._current(key, anywhere)]
                self._followed = self._followed or line
            else:
                raise self._unknown(kind, row)
        if cut := line.row.get("cut"):
            raise NotInEvidence(
                f"the {' and '.join(cut)} of {line.asked} had more than {MAX_TEXT} "
                f"characters, which is all that evidence keeps{self._asking()}",
                hint="ask for less: a shorter capture, fewer lines",
            )
        return line

    def done(self, line: Line) -> None:
        """This thread has used an answer: what it asks from now on was asked after it."""
        with self._lock:
            mine = threading.get_ident()
            self._after[mine] = max(self._after.get(mine, 0.0), line.ended)
            self._moment = line.ended

    def passed(self, line: Line) -> bool:
        """Whether a command has ended by now: all that was asked while it ran has been asked again."""
        with self._lock:
            left = (
                lines[self._at.get(key, -1) + 1 :]
                for key, lines in (self._here.lines.items() if self._here else ())
            )
            return not any(line.started <= one.started < line.ended for lines in left for one in lines)

    def _enter(self, cell: cells.Cell) -> None:
        """A cell begins: find the run of it that counts."""
        self._cell = cell
        self._here = self._choose(cell)
        self._after: dict[int, float] = {}  # when each thread's last answer was there
        self._at: dict[Key, int] = {}  # which answer a request had last
        self._followed = None  # the first answer from anywhere

    def _choose(self, cell: cells.Cell) -> _Run | None:
        runs = self._runs.get(cell.source, [])
        # A cell without an id counts as another one each time that its text is run.
        seen = self._seen.setdefault(cell.source, [])
        name = cell.id or f"run {len(seen)}"
        if name not in seen:
            seen.append(name)
        if own := [run for run in runs if cell.id and run.cell == cell.id]:
            return own[-1]
        if not runs:
            changed = [
                run for group in self._runs.values() for run in group if cell.id and run.cell == cell.id
            ]
            return changed[-1] if changed else None
        named: dict[str, _Run] = {run.cell: run for run in runs if run.cell}
        if named:  # the last run of each
            same = list(named.values())
        else:
            same = [run for run in runs if run.session == runs[-1].session]
        return same[min(seen.index(name), len(same) - 1)]

    def _next(self, key: Key, lines: Sequence[Line]) -> int:
        """Choose among the answers that a request had in this run of the cell."""
        mine, main = threading.get_ident(), threading.main_thread().ident or 0
        after = self._after.get(mine, self._after.get(main, 0.0)) - _SLACK_S
        # Never back: an answer that was passed over is not given later.
        fresh = range(self._at.get(key, -1) + 1, len(lines))
        at = next((n for n in fresh if lines[n].started >= after), len(lines) - 1)
        # What was asked in the same breath may be asked in another order now.
        if at - 1 in fresh and after - lines[at - 1].started < _BREATH_S < lines[at].started - after:
            at -= 1
        self._at[key] = at
        return at

    def _current(self, key: Key, lines: Sequence[Line]) -> int:
        """Choose, for a cell that did not ask this then, the answer of this moment, then the next."""
        if key in self._at:
            at = min(self._at[key] + 1, len(lines) - 1)
        elif near := self._near(key):
            at = lines.index(near)
        else:
            moment = self._here.ended if self._here else self._moment
            at = max(sum(line.started <= moment for line in lines) - 1, 0)
        self._at[key] = at
        return at

    def _near(self, key: Key) -> Line | None:
        """Return an answer of the run that follows this cell's.

        For a cell that has none: of the run that its first answer is from, or of the next one.
        """
        since = 0.0
        if self._here:
            runs = [self._here.following]
        elif self._followed:
            since = self._followed.started
            run = self._run_of[self._followed.at]
            runs = [run, run.following]
        else:
            return None
        lines = [line for run in runs if run for line in run.lines.get(key, ())]
        return next((line for line in lines if line.started >= since), lines[-1] if lines else None)

    def _unknown(self, kind: str, row: Mapping[str, Any]) -> NotInEvidence:
        """Say what was asked, by which cell, and what is there that is like it."""
        asked = describe(kind, row)
        told = f"the evidence {self.evidence.path.name} has no answer to {asked}{self._asking()}"
        if kind == "command":
            lines = [line for line in self.evidence.lines if line.kind == "command"]
            argv = [*row["argv"]]
            elsewhere = dict.fromkeys(line.row["place"] for line in lines if line.row["argv"] == argv)
            like = [line.row["argv"] for line in lines if line.row["place"] == row["place"]]
            here = dict.fromkeys(" ".join(words)[:100] for words in like if words[:1] == argv[:1])
            near = difflib.get_close_matches(" ".join(argv)[:100], list(here)[:500], n=2, cutoff=0.6)
            if elsewhere:
                told += f"\nthe same was asked on {', '.join(list(elsewhere)[:5])}"
            if near:
                told += "\nwhat was asked there: " + "; ".join(f"`{command}`" for command in near)
        return NotInEvidence(
            told,
            hint="only what was run on a swarm has an answer: run the whole notebook there "
            "(labkit up, then Restart Kernel and Run All Cells), which leaves new evidence",
        )

    def _asking(self) -> str:
        text = self._cell.text.strip()
        first = next((line for line in text.splitlines() if not line.startswith(("#", '"""'))), "")
        if not text:
            return ""
        changed = "" if self._here else "; that cell was not run then, or was changed since"
        return f"\nasked by the cell that begins `{first.strip()[:80]}`{changed}"

    # --- time ----------------------------------------------------------------------------------

    def pause(self, seconds: float) -> None:
        """Put a thread's clock forward; there is nothing to wait for."""
        self._time.ahead = getattr(self._time, "ahead", 0.0) + seconds

    def now(self) -> float:
        """Return this thread's clock."""
        return time.monotonic() + float(getattr(self._time, "ahead", 0.0))


class ReplayedLink:
    """The link to a node that is not there."""

    def __init__(self, node: str, replay: Replay) -> None:
        self._node, self._replay = node, replay

    @cached_property
    def runner(self) -> CommandRunner:
        """What answers commands."""
        return _ReplayedRunner(self._node, self._replay)

    @cached_property
    def docker(self) -> DockerClient:
        """A docker client whose requests are answered from the evidence."""
        return daemon(self._node, nowhere, through=self._through)

    def demand(self, command: Command) -> None:
        """Nothing is refused: nothing is run."""

    def pause(self, seconds: float) -> None:
        """Put the clock forward."""
        self._replay.pause(seconds)

    def now(self) -> float:
        """A clock that pauses put forward."""
        return self._replay.now()

    def close(self) -> None:
        """Nothing is open."""

    def _through(self, request: PreparedRequest, _: Callable[[], Response]) -> Response:
        import requests

        line = self._replay.take("api", {"node": self._node, **request_row(request)})
        self._replay.done(line)
        row = line.row
        if "error" in row:
            raise requests.ConnectionError(row["error"])
        content = content_of(row)
        return response_of(request, row["status"], row["type"], content)


def nowhere(path: str) -> NoReturn:
    """Stand for what connects to a node."""
    raise SwarmError(f"there is no node behind a replay, and so no {path}", hint="labkit up")


class _RecordedResult(Future[CommandResult]):
    """The recorded result of a command; it is there at once, and `done` when it was done then."""

    def __init__(self, line: Line, replay: Replay) -> None:
        super().__init__()
        self._line, self._replay, self._asked = line, replay, replay.now()
        row = line.row
        if "error" in row:
            self.set_exception(SwarmError(row["error"]))
            return
        self.set_result(dataclasses.replace(result_of_row(row), recorded=True))

    def done(self) -> bool:
        # Code that has changed since may never ask the same: then the time counts that it waits.
        waited = self._replay.now() - self._asked
        return waited >= self._line.row["seconds"] or self._replay.passed(self._line)

    def result(self, timeout: float | None = None) -> CommandResult:
        self._replay.done(self._line)
        return super().result(timeout)


class _ReplayedRunner:
    """Answers commands from the evidence."""

    def __init__(self, node: str, replay: Replay) -> None:
        self._node, self._replay = node, replay
        self._numbers = itertools.count(1)
        self._asked: dict[int, Line] = {}

    def submit(self, command: Command) -> tuple[int, Future[CommandResult]]:
        line = self._replay.take("command", {"node": self._node, **command._asdict()})
        number = next(self._numbers)
        self._asked[number] = line
        return number, _RecordedResult(line, self._replay)

    def wait_ready(self, number: int, timeout: float) -> None:
        row = self._asked[number].row
        if not row["ready"]:
            raise ended_first(str(row.get("stderr", row.get("error"))))

    def stop(self, number: int) -> None:
        pass

    def close(self) -> None:
        pass


# --- the one that this process replays -----------------------------------------------------------

_now: Replay | None = None


def asked() -> Path | None:
    """Return the evidence that LABKIT_REPLAY names, None where it names none; raises UsageError.

    It names a file, or a directory that has a file for this notebook.
    """
    named = os.environ.get("LABKIT_REPLAY")
    if not named:
        return None
    path = Path(named)
    return files.of_notebook(path) if path.is_dir() else path


def begin(path: Path) -> Replay:
    """Replay a file; asked again for the same one, it goes on where it is."""
    global _now
    if _now is None or _now.evidence.path != path:
        _now = Replay(path)
    return _now


def end() -> None:
    """Forget what was replayed: what is attached next is live."""
    global _now
    _now = None


def captures() -> Iterator[Capture]:
    """Yield every command of the evidence that this process replays, with its answer."""
    for line in _now.evidence.lines if _now else ():
        if (capture := line.capture) is not None:
            yield dataclasses.replace(capture, recorded=True)


def learner() -> str | None:
    """Whose evidence this process replays; None where it replays none."""
    if path := asked():
        begin(path)
    return _now.evidence.learner if _now else None
