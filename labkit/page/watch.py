"""Keeps one lab in view for as long as somebody asks: its newest state, and what changes it.

A thread listens to what the Docker engines of the nodes tell of themselves (`docker events`) and looks
again when something has happened; where nothing happens, it looks a few times a minute. The state that
it finds is handed to the event loop of Jupyter's server, which is the only one to keep it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from labkit import engines, swarm
from labkit.errors import EngineError, LabkitError, UnknownNameError, UsageError
from labkit.page import look
from labkit.page.actions import Work
from labkit.progress import Progress, Step
from labkit.swarm import Lab, Node
from labkit.transport.base import DaemonError

log = logging.getLogger(__name__)

_SETTLE_S = 0.15  # what happens at once is looked at once
_AGAIN_S = 1.0  # after something has happened, and while a task is on its way: the manager hears later
_REST_S = 10.0  # where nothing happens
_ABSENT_S = 1.5  # between two looks for a lab that is not there
_ASKED_FOR_S = 45.0  # so long after the last question the thread goes on
_EVENTS = {"type": ["container", "network", "node", "service"]}


@dataclass(frozen=True)
class State:
    """What is known of the lab: one word, a sentence for people, the next step, and what was seen.

    ``up``: it answers, and `seen` is what there is. ``none``: no such lab runs. ``lost``: it was there
    and does not answer. ``working``: it is being started, reset, saved or restored. ``recorded``: there
    is no swarm, the answers in the notebooks are recorded ones.
    """

    lab: str
    state: Literal["up", "none", "lost", "working", "recorded"]
    told: str
    hint: str = ""
    docker: str = ""
    seen: look.Look | None = None
    checkpoints: tuple[str, ...] = ()
    """The names to come back to, oldest first."""
    failed: str = ""
    """Why the last start, reset, save or restore failed, until the next one."""


class Watch:
    """The lab that a page is about. All but its thread runs in the event loop."""

    def __init__(self, lab: str, recorded: str = "") -> None:
        """Watch a lab by name, or say that the answers are `recorded` ones, in such a file."""
        self.lab, self.recorded = lab, recorded
        self.version = int(time.time())  # a page that knew an earlier server asks on
        self.state = State(lab, "none", "not looked yet")
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._asked_until = 0.0
        self._work: tuple[str, Work] | None = None
        self._failed = ""
        self._ending = threading.Lock()
        self._changed = threading.Event()

    async def newer(self, than: int, seconds: float) -> tuple[int, State]:
        """Return the state and its number, once that is another one; in `seconds` at the latest."""
        self._ask()
        if self.version == than:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        return self.version, self.state

    def begin(self, title: str, work: Work) -> None:
        """Have the thread do what makes the lab another one; raises UsageError while it does."""
        if self.recorded:
            raise UsageError(
                "there is no swarm: the answers are recorded ones",
                hint="end JupyterLab, and start it without LABKIT_REPLAY",
            )
        if self._work:
            raise UsageError(f"one thing at a time: {self._work[0]}", hint="wait for it")
        self._work, self._failed = (title, work), ""
        self._take(State(self.lab, "working", title))
        self._ask()
        self._changed.set()

    def _ask(self) -> None:
        """Let the thread go on, or begin."""
        if self.recorded:
            told = f"No swarm runs: the answers are recorded ones, of {self.recorded}."
            self._take(State(self.lab, "recorded", told))
            return
        with self._ending:
            self._asked_until = time.monotonic() + _ASKED_FOR_S
            if self._thread is None:
                self._loop = asyncio.get_running_loop()
                self._thread = threading.Thread(target=self._run, name="labkit watch", daemon=True)
                self._thread.start()

    def _take(self, state: State) -> None:
        """Keep a state that differs from the one before, and tell those who wait.

        What a look saw that began before the work under way is of a lab that will be another one.
        """
        if state == self.state or (self._work and state.state != "working"):
            return
        self.state, self.version = state, self.version + 1
        self._news.set()
        self._news = asyncio.Event()

    # --- in the thread ------------------------------------------------------------------------------

    def _tell(self, state: State) -> None:
        assert self._loop
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._take, state)

    def _wanted(self) -> bool:
        return time.monotonic() < self._asked_until

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._changed.clear()
                if self._work:
                    self._do(*self._work)
                else:
                    self._find()
        except BaseException:
            self._thread = None  # who asks next gets another one
            raise

    def _goes_on(self) -> bool:
        """Whether there is something to do; if not, who asks from now on starts another thread."""
        with self._ending:
            if self._wanted() or self._work:
                return True
            self._thread = None
            return False

    def _do(self, title: str, work: Work) -> None:
        """Start, reset, save or restore."""
        try:
            work(_Stages(lambda told: self._tell(State(self.lab, "working", told))))
        except (LabkitError, OSError) as problem:
            log.info("%s: %s", title, problem)
            self._failed = f"{title}: {problem}"
        finally:
            self._work = None

    def _find(self) -> None:
        """Find the lab and keep it in view; return when it is to be looked for once more."""
        try:
            found = swarm.get(self.lab)
            with contextlib.closing(found), _events(found, self._changed) as talk:
                self._follow(found, talk)
        except UnknownNameError:
            told = f"No swarm runs as lab {self.lab!r}."
            self._tell(State(self.lab, "none", told, failed=self._failed))
            self._changed.wait(_ABSENT_S)
        except (LabkitError, OSError) as problem:
            self._tell(self._lost(problem))
            self._changed.wait(_ABSENT_S)

    def _follow(self, found: Lab, talk: Callable[[], bool]) -> None:
        """Look again and again, until the nodes do not `talk` any more; raises what a look raises."""
        pause = _REST_S
        while talk() and not self._work and self._wanted():
            try:
                seen = look.at(found)
            except DaemonError as problem:  # a manager without a leader, say; it still talks
                self._tell(self._lost(problem))
                self._changed.wait(_ABSENT_S)
                continue
            told = f"{len(found.nodes)} nodes with Docker {found.docker}"
            kept = _checkpoints(self.lab)
            self._tell(State(self.lab, "up", told, "", found.docker, seen, kept, self._failed))
            if self._changed.wait(min(pause, _REST_S)):
                time.sleep(_SETTLE_S)
                self._changed.clear()
                pause = _AGAIN_S
            else:
                pause = pause * 2 if seen.moves else _REST_S

    def _lost(self, problem: LabkitError | OSError) -> State:
        hint = getattr(problem, "hint", "") or f"labkit reset --lab {self.lab}"
        told = str(problem.args[0] if problem.args else problem)
        return State(self.lab, "lost", told, hint, failed=self._failed)


def _checkpoints(lab: str) -> tuple[str, ...]:
    """Return the names of a lab's checkpoints; none where its engine cannot keep any."""
    try:
        return tuple(checkpoint.name for checkpoint in engines.checkpoints(lab).list())
    except EngineError:
        return ()


class _Stages(Progress):
    """Tells the titles of the stages."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    @contextlib.contextmanager
    def stage(self, title: str) -> Iterator[Step]:
        """Run the body as a stage that is told."""
        self._tell(title)
        yield Step()

    def say(self, text: str) -> None:
        """Tell a message that belongs to no stage."""
        self._tell(text)


@contextlib.contextmanager
def _events(lab: Lab, changed: threading.Event) -> Iterator[Callable[[], bool]]:
    """Listen to every node while the body runs; gives a function that says whether all still talk."""
    ended = threading.Event()
    streams: list[Any] = []

    def listen(node: Node, stream: Any) -> None:
        try:
            for _ in stream:
                changed.set()
        except Exception as problem:  # whatever the transport makes of a stream that breaks
            log.info("%s tells nothing more: %s", node.name, problem)
        ended.set()
        changed.set()

    try:
        for node in lab.nodes.values():
            streams.append(node.docker.events(filters=_EVENTS))
            name, told = f"labkit events {node.name}", (node, streams[-1])
            threading.Thread(target=listen, args=told, name=name, daemon=True).start()
        yield lambda: not ended.is_set()
    finally:
        for stream in streams:
            with contextlib.suppress(Exception):
                stream.close()
