"""The lab that a page is about: its newest state, for whoever asks Jupyter's server for a newer one."""

from __future__ import annotations

import asyncio
import contextlib
import time

from labkit.errors import UsageError
from labkit.swarm.watch import State, Watch, Work

_ASKED_FOR_S = 45.0  # so long after the last question the lab is kept in view


class View:
    """The state of a lab, with a number that rises at each change. All of it runs in the event loop."""

    def __init__(self, lab: str, recorded: str = "") -> None:
        """Keep a lab in view by name, or say that the answers are `recorded` ones, in such a file."""
        self.lab, self.recorded = lab, recorded
        self.version = int(time.time())  # a page that knew an earlier server asks on
        self.state = State(lab, "none", "not looked yet")
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watch = Watch(lab, self._tell)

    async def newer(self, than: int, seconds: float) -> tuple[int, State]:
        """Return the state and its number, once that is another one; in `seconds` at the latest."""
        self._loop = asyncio.get_running_loop()
        if self.recorded:
            told = f"No swarm runs: the answers are recorded ones, of {self.recorded}."
            self._take(State(self.lab, "recorded", told))
        else:
            self._watch.ask(_ASKED_FOR_S)
        if self.version == than:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), seconds)
        return self.version, self.state

    def begin(self, title: str, work: Work) -> None:
        """Do what makes the lab another one; raises UsageError while that is done already."""
        if self.recorded:
            raise UsageError(
                "there is no swarm: the answers are recorded ones",
                hint="end JupyterLab, and start it without LABKIT_REPLAY",
            )
        self._loop = asyncio.get_running_loop()
        self._take(self._watch.begin(title, work))

    def _take(self, state: State) -> None:
        """Keep a state that differs from the one before, and tell those who wait.

        What a look saw that began before the work under way is of a lab that will be another one.
        """
        if state == self.state or (self._watch.works and state.state != "working"):
            return
        self.state, self.version = state, self.version + 1
        self._news.set()
        self._news = asyncio.Event()

    def _tell(self, state: State) -> None:
        """Hand a state over to the event loop; this runs in the thread that watches."""
        assert self._loop
        with contextlib.suppress(RuntimeError):  # the server has ended
            self._loop.call_soon_threadsafe(self._take, state)
