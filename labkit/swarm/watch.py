"""Keeps one lab in view for as long as somebody asks: its newest state, and what changes it.

A thread listens to what the Docker engines of the nodes tell of themselves (`docker events`) and looks
again when something has happened; where nothing happens, it looks a few times a minute. What it asks is
in nobody's evidence.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

from labkit import engines
from labkit.errors import EngineError, LabkitError, UnknownNameError, UsageError
from labkit.progress import Progress, Step
from labkit.swarm import lifecycle
from labkit.swarm.lab import Lab
from labkit.swarm.look import Look
from labkit.swarm.places import Node
from labkit.transport.base import DaemonError

Work = Callable[[Progress], object]
"""What makes a lab another one; it takes seconds or minutes, and its stages are told."""

log = logging.getLogger(__name__)

_SETTLE_S = 0.15  # what happens at once is looked at once
_AGAIN_S = 1.0  # after something has happened, and while a task is on its way: the manager hears later
_REST_S = 10.0  # where nothing happens
_ABSENT_S = 1.5  # between two looks for a lab that is not there
_TITLES = {
    "up": "Your swarm is up",
    "none": "No swarm is running",
    "lost": "Your swarm does not answer",
    "working": "Your swarm is at work",
    "recorded": "You work with recorded answers",
}
_SIGNS = {"up": "●", "none": "○", "lost": "▲", "working": "◐", "recorded": "■"}
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
    seen: Look | None = None
    checkpoints: tuple[str, ...] = ()
    """The names to come back to, oldest first."""
    failed: str = ""
    """Why the last start, reset, save or restore failed, until the next one."""

    @classmethod
    def of(cls, lab: Lab, failed: str = "") -> Self:
        """Look at a lab that runs; raises DaemonError and NodeUnreachable."""
        told = f"{len(lab.nodes)} nodes with Docker {lab.docker}"
        return cls(lab.name, "up", told, "", lab.docker, lab.look(), _checkpoints(lab.name), failed)

    @property
    def title(self) -> str:
        """The state in a few words for people."""
        return _TITLES[self.state]

    @property
    def sign(self) -> str:
        """The same at a glance, beside the words, so that nothing is told by colour alone."""
        return _SIGNS[self.state]


class Watch:
    """A lab in view: what it is like is told, at each change, in a thread of its own."""

    def __init__(self, lab: str, tell: Callable[[State], None]) -> None:
        """Watch a lab by name; `tell` is called in the thread, and is not to take long."""
        self.lab = lab
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._asked_until = 0.0
        self._work: tuple[str, Work] | None = None
        self._failed = ""
        self._ending = threading.Lock()
        self._changed = threading.Event()

    @property
    def works(self) -> bool:
        """Whether the lab is being made another one; what was seen of it before counts no more."""
        return self._work is not None

    def ask(self, seconds: float) -> None:
        """Keep the lab in view for so long from now."""
        with self._ending:
            self._asked_until = max(self._asked_until, time.monotonic() + seconds)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="labkit watch", daemon=True)
                self._thread.start()

    def rest(self) -> None:
        """Look no more, until somebody asks again."""
        self._asked_until = 0.0
        self._changed.set()

    def begin(self, title: str, work: Work) -> State:
        """Have the thread do what makes the lab another one; raises UsageError while it does.

        Returns the state that it is in from now on.
        """
        if self._work:
            raise UsageError(f"one thing at a time: {self._work[0]}", hint="wait for it")
        self._work, self._failed = (title, work), ""
        self.ask(0)
        self._changed.set()
        return State(self.lab, "working", title)

    # --- in the thread ------------------------------------------------------------------------------

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
            found = lifecycle.get(self.lab)
            with contextlib.closing(found), _events(found, self._changed) as talk:
                self._follow(found, talk)
        except UnknownNameError:
            told = f"No swarm runs as lab {self.lab!r}."
            self._tell(State(self.lab, "none", told, failed=self._failed))
            self._changed.wait(_ABSENT_S)
        except lifecycle.BeingMade as making:  # by a notebook, say: nothing is lost
            self._tell(State(self.lab, "working", str(making.args[0]), failed=self._failed))
            self._changed.wait(_ABSENT_S)
        except (LabkitError, OSError) as problem:
            self._tell(self._lost(problem))
            self._changed.wait(_ABSENT_S)

    def _follow(self, found: Lab, talk: Callable[[], bool]) -> None:
        """Look again and again, until the nodes do not `talk` any more; raises what a look raises."""
        pause = _REST_S
        while talk() and not self._work and self._wanted():
            try:
                state = State.of(found, self._failed)
            except DaemonError as problem:  # a manager without a leader, say; it still talks
                self._tell(self._lost(problem))
                self._changed.wait(_ABSENT_S)
                continue
            self._tell(state)
            if self._changed.wait(min(pause, _REST_S)):
                found.pause(_SETTLE_S)
                self._changed.clear()
                pause = _AGAIN_S
            else:
                pause = pause * 2 if state.seen and state.seen.moves else _REST_S

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
