"""Starts the process that carries a machine's connections (standby.py), and starts it again."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from labkit import paths
from labkit.engines.vm import isolation, machine
from labkit.engines.vm.machine import Machine
from labkit.engines.vm.proxy import DOORS
from labkit.errors import EngineError

_LOOPBACK = "127.0.0.1"
_PORTS_SECONDS, _PORTS_PAUSE = 5.0, 0.05  # for ports that a proxy had which was killed


@dataclass(frozen=True)
class Started:
    """The process that carries a machine's connections, and the ports that it listens on."""

    pid: int
    ports: dict[str, int]

    def before(self, running: Machine) -> Machine:
        """Return a machine as it is reached through this."""
        api, relay = (self.ports[door] for door in DOORS)
        return replace(running, proxy=self.pid, port=api, relay=relay)


@contextlib.contextmanager
def start(directory: Path) -> Iterator[Started]:
    """Start a proxy for the machine that the body starts; it ends where the body fails."""
    process, ports = _start(directory, {}, beside=None)
    try:
        yield Started(process.pid, ports)
    except BaseException:
        process.kill()
        process.wait()
        raise


def reached(running: Machine) -> Machine:
    """Return a machine whose proxy runs: it is started where it was ended, on the ports that it had.

    Raises EngineError where another program has taken one of them.
    """
    if running.reachable:
        return running
    ports = {"api": running.port, "relay": running.relay}
    directory = Path(running.directory)
    deadline = time.monotonic() + _PORTS_SECONDS
    while True:
        try:
            beside = None if running.hibernated.exists() else running.pid
            process, _ = _start(directory, ports, beside=beside)
            return replace(running, proxy=process.pid).record()
        except OSError as problem:  # the old one is still ending, or another command was quicker
            now = machine.read(directory)
            if now.reachable:
                return now
            if time.monotonic() > deadline:
                raise EngineError(
                    f"the ports of lab {running.lab!r} cannot be had again: {problem.strerror}",
                    hint=f"labkit reset --lab {running.lab}",
                ) from problem
            time.sleep(_PORTS_PAUSE)


def _start(
    directory: Path, ports: Mapping[str, int], *, beside: int | None
) -> tuple[subprocess.Popen[bytes], dict[str, int]]:
    """Start a proxy on ports of loopback, free ones where none is named; who comes early waits.

    It is in the network of the machine `beside`, or in a new one, and listens in this process's.
    """
    with contextlib.ExitStack() as opened:
        doors = {
            door: opened.enter_context(socket.create_server((_LOOPBACK, ports.get(door, 0))))
            for door in DOORS
        }
        table = opened.enter_context(open(isolation.CONNECTIONS, "rb"))
        numbers = [table.fileno(), *(door.fileno() for door in doors.values())]
        output = opened.enter_context((directory / "proxy.log").open("ab"))
        # Not from the directory that it works in.
        argv = [sys.executable, "-P", "-m", machine.PROXY, *map(str, numbers)]
        apart = functools.partial(isolation.start_beside, beside) if beside else isolation.start_apart
        process = apart(
            argv,
            pass_fds=numbers,
            cwd=directory,
            env=_with_this_kit(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        return process, {name: door.getsockname()[1] for name, door in doors.items()}


def _with_this_kit() -> dict[str, str]:
    """Return the environment in which a program in another directory finds this labkit."""
    there = os.environ.get("PYTHONPATH", "")
    before = [str(Path(entry).resolve()) for entry in there.split(os.pathsep) if entry]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(paths.PACKAGE.parent), *before])}
