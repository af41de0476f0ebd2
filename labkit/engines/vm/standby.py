"""The proxy's process: pauses and hibernates a machine, and wakes it.

Started beside each machine (process.py); a lab rests while no command of the kit runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from labkit.engines import locks
from labkit.engines.vm import machine, process, qmp
from labkit.engines.vm.isolation import Peers
from labkit.engines.vm.machine import Machine
from labkit.engines.vm.proxy import DOORS, Idle, Proxy, State
from labkit.errors import EngineError, UsageError

log = logging.getLogger(__name__)

_SECONDS = {"LABKIT_PAUSE_AFTER": 300.0, "LABKIT_HIBERNATE_AFTER": 3600.0}

_RECORD_SECONDS = 600.0  # until who starts a machine has written down how to reach it
_PAUSE = 0.01
_NOW = 0.1  # seconds of patience with who changes the lab: a lab that is changed is not idle


def idle(environment: Mapping[str, str] = os.environ) -> Idle:
    """Return when a machine rests, by LABKIT_PAUSE_AFTER and LABKIT_HIBERNATE_AFTER; 0 is never.

    Raises UsageError for what is no number of seconds.
    """
    return Idle(*(_seconds(name, environment.get(name, "")) for name in _SECONDS))


def _seconds(name: str, text: str) -> float | None:
    try:
        seconds = float(text) if text else _SECONDS[name]
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(
            f"{name}={text!r} is no number of seconds", hint=f"{name}=300, say, or 0 for never"
        )
    return seconds or None


class MachineControl:
    """What the proxy of a lab's machine does with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._machine = machine.read(directory)

    def state(self) -> State:
        """Return the state of the machine."""
        if self._machine.hibernated.exists():
            return "hibernated"
        return "running" if qmp.runs(self._directory) else "paused"

    def pid(self) -> int:
        """Return the pid of its QEMU."""
        return self._machine.pid

    def port(self, door: str) -> int:
        """Return the port that QEMU forwards."""
        api, relay = self._machine.inside
        return relay if door == "relay" else api

    def pause(self) -> bool:
        """Pause it, unless somebody changes the lab."""
        try:
            with locks.hold(self._machine.lab, patience=_NOW) as held:
                if held.cut_short:
                    return False
                qmp.pause(self._directory)
        except EngineError as problem:
            log.info("it is not paused: %s", problem.args[0])
            return False
        return True

    def hibernate(self, unwanted: Callable[[], bool]) -> bool:
        """Write it down and end QEMU, unless somebody changes the lab or wants it after all."""
        try:
            with locks.hold(self._machine.lab, patience=_NOW) as held:
                if held.cut_short:
                    return False
                with held.step("saving"):
                    return process.hibernate(self._machine, unwanted)
        except (EngineError, OSError) as problem:  # no room on the disk, say
            log.info("it cannot be hibernated, or ended afterwards: %s", problem)
            return self._machine.hibernated.exists()

    def wake(self) -> None:
        """Let it run, and set its clock, which stood still.

        It runs where the clock cannot be set, too, on a busy computer say: the next time sets it.
        """
        if self._machine.hibernated.exists():
            self._machine = process.wake(self._machine)
        else:
            process.resume(self._machine)
        try:
            self._machine.directly.set_clock()
        except EngineError as problem:
            log.warning("its clock is not set: %s", problem)


def _recorded(directory: Path) -> Machine | None:
    """Wait for the machine to be written down; None where who starts it has given up."""
    deadline = time.monotonic() + _RECORD_SECONDS
    while not (directory / machine.RECORD).exists():
        if not directory.exists() or time.monotonic() > deadline:
            return None
        time.sleep(_PAUSE)
    return machine.read(directory)


def main(arguments: list[str]) -> None:
    """Carry the connections of the machine whose directory this process works in.

    The arguments are descriptors: the table of connections, and the listening sockets in the order of
    DOORS.
    """
    table, *listening = map(int, arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    doors = {door: socket.socket(fileno=number) for door, number in zip(DOORS, listening, strict=True)}
    directory = Path.cwd()
    if _recorded(directory) is None:
        return

    async def serve() -> None:
        peers = Peers(table)
        await Proxy(MachineControl(directory), idle(), admits=peers.are_own).serve(doors)

    asyncio.run(serve())


if __name__ == "__main__":
    main(sys.argv[1:])
