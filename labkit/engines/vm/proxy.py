"""The way to an embedded machine: carries its connections, and lets it rest while nobody asks.

After some minutes of silence the machine is paused, and after some more it is hibernated: written to
its directory, and its process ended. The next byte that a client sends waits here until it runs again,
with its clock set.

Whether somebody waits for an answer cannot be read in bytes that are encrypted, nor on a stream that
carries many commands. So whoever is connected may be waiting for something that tells nothing of itself
(`sleep 900`): then it takes much more silence. The kit itself hangs up when it asks nothing
(transport/silence.py).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from labkit.engines.vm.isolation import Address
from labkit.errors import LabkitError

log = logging.getLogger(__name__)

DOORS = ("api", "relay")
"""Where clients come in: to the Docker daemon, and to the relay in the machine."""

_CHUNK = 1 << 16
_PATIENCE = 12  # times as much silence while somebody is connected: an hour, where it is five minutes

State = Literal["running", "paused", "hibernated"]
"""A machine runs, or it stands still in memory, or it is in a file and has no process."""


class Idle(NamedTuple):
    """After how many seconds of silence a machine is paused and hibernated; None: never."""

    pause: float | None
    hibernate: float | None


class Control(Protocol):
    """What brings a machine from one state to another; each call may take seconds."""

    def state(self) -> State:
        """Return the state that it is in."""
        ...

    def pid(self) -> int | None:
        """Return its process, None where there is none."""
        ...

    def port(self, door: str) -> int:
        """Return the port of loopback that the machine itself listens on, for what comes by a door."""
        ...

    def pause(self) -> bool:
        """Pause it; returns whether it is. It is not while somebody changes the lab."""
        ...

    def hibernate(self, unwanted: Callable[[], bool]) -> bool:
        """Write it down and, if it is `unwanted` even then, end its process; returns whether it has."""
        ...

    def wake(self) -> None:
        """Let it run again, with its clock set if that can be; raises EngineError where it does not."""
        ...


class Proxy:
    """Carries the connections of one machine, which rests while it is not needed.

    `admits` is asked of each connection with the addresses of its client and its door.
    """

    def __init__(
        self,
        control: Control,
        idle: Idle,
        *,
        admits: Callable[[Address, Address], bool] = lambda client, door: True,
    ) -> None:
        self._control, self._idle, self._admits = control, idle, admits
        self._state: State = control.state()
        self._changing = asyncio.Lock()
        self._last = time.monotonic()
        self._said = asyncio.Event()  # something went either way since the watch looked
        self._ways: set[asyncio.Task[None]] = set()  # one for each connection
        self._gone = asyncio.Event()

    async def serve(self, doors: dict[str, socket.socket]) -> None:
        """Carry what comes in by the doors, until the machine ends by itself."""
        servers = [
            await asyncio.start_server(functools.partial(self._carry, door), sock=listening)
            for door, listening in doors.items()
        ]
        self._watch_process()
        watch = asyncio.create_task(self._watch())
        await self._gone.wait()
        watch.cancel()
        for server in servers:
            server.close()
        self._close(self._ways)

    # --- what is carried ----------------------------------------------------------------------------

    async def _carry(
        self, door: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        client, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        if not client or not self._admits(client, here):
            log.warning("somebody else's connection is refused, at the door for %s", door)
            writer.close()
            return
        task = asyncio.current_task()
        assert task
        self._ways.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            await self._awake()
            answers, there = await asyncio.open_connection("127.0.0.1", self._control.port(door))
            await asyncio.gather(
                self._pass_on(reader, there, asks=True),
                self._pass_on(answers, writer, asks=False),
            )
        except (LabkitError, OSError) as problem:  # it does not wake, or either side has ended
            log.debug("%s: %s", door, problem)
        finally:
            self._ways.discard(task)
            for end in (writer, there):
                if end:
                    end.close()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        asks: bool,
    ) -> None:
        """Carry bytes one way until they end, and pass their end on too."""
        while data := await reader.read(_CHUNK):
            self._last = time.monotonic()
            self._said.set()
            if asks and self._state != "running":
                await self._awake()
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _close(self, ways: set[asyncio.Task[None]]) -> None:
        for way in ways:
            way.cancel()

    # --- where the machine is -----------------------------------------------------------------------

    async def _awake(self) -> None:
        """Return when the machine runs; raises EngineError where it does not come back."""
        async with self._changing:
            if self._state == "running":
                return
            began = time.monotonic()
            before = self._state
            try:
                await asyncio.to_thread(self._control.wake)
            except (LabkitError, OSError) as problem:
                log.warning("it does not wake: %s", problem)
                raise
            self._state, self._last = "running", time.monotonic()
            self._said.set()
            if before == "hibernated":
                self._watch_process()
            log.info("it was %s and runs again, after %.3f s", before, time.monotonic() - began)

    async def _watch(self) -> None:
        """Let the machine rest when nobody has said anything for long enough."""
        while True:
            wanted = {"running": self._idle.pause, "paused": self._idle.hibernate, "hibernated": None}[
                self._state
            ]
            self._said.clear()
            if wanted is None:
                await self._said.wait()
                continue
            left = self._last + self._silence(wanted) - time.monotonic()
            if left > 0:
                await asyncio.sleep(min(left, wanted))  # who waits now may have gone by then
                continue
            async with self._changing:
                if self._state == "running":
                    await self._pause()
                else:
                    await self._hibernate()

    def _silence(self, wanted: float) -> float:
        """How long it has to be silent: longer where somebody is connected, and may be waiting."""
        return wanted * _PATIENCE if self._ways else wanted

    async def _pause(self) -> None:
        if self._last + self._silence(self._idle.pause or 0) > time.monotonic():
            return  # somebody came meanwhile
        self._state = "paused"  # from now on, who asks wakes it
        if await asyncio.to_thread(self._control.pause):
            log.info("nobody asks: it is paused")
        else:
            self._state, self._last = "running", time.monotonic()

    async def _hibernate(self) -> None:
        last, ways = self._last, set(self._ways)
        self._state = "hibernated"
        if await asyncio.to_thread(self._control.hibernate, lambda: self._last == last):
            log.info("nobody asks: it is hibernated")
            self._close(ways)  # their other ends are gone
        else:
            self._state, self._last = "paused", time.monotonic()

    def _watch_process(self) -> None:
        """End where the machine's process ends by itself: a client then finds nobody here."""
        pid = None if self._state == "hibernated" else self._control.pid()
        if pid is None:
            return
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            self._gone.set()
            return

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            if self._state != "hibernated":
                self._gone.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(handle, ended)
