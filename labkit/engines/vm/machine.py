"""Running embedded machines: one QEMU process per lab, its Docker API over TLS on loopback only.

A lab's machine has a directory of its own with its disk (a copy-on-write layer), QEMU's sockets and
logs, and `machine.json`, which says how to reach it. Removing the machine removes the directory.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import files, paths
from labkit.engines.base import Connection
from labkit.engines.vm import relay
from labkit.errors import EngineError
from labkit.transport.base import API_VERSION
from labkit.transport.silence import hang_up_after_silence

if TYPE_CHECKING:
    import psutil
    from docker import DockerClient

log = logging.getLogger(__name__)

INNER_LAB = "vm"
"""What a lab is called on its machine's own daemon: a snapshot is older than the lab's name."""

RECORD = "machine.json"

HIBERNATED = "hibernated"
"""The file in a lab's directory that holds its machine, memory and all, while it has no process."""

PROXY = "labkit.engines.vm.standby"
"""The module that carries a machine's connections in a process of its own, as `python -m` names it."""

_ANSWER_SECONDS = 120.0
_CLOCK_SECONDS = 1.0  # how far a restored machine's clock may be off
_CLOCK_TRIES = 8
_SEED_BYTES = 64  # twice what the kernel's generator holds
_LAST_LINES = 12
_END_SECONDS = 20.0  # for QEMU to be gone after it was killed


@dataclass(frozen=True)
class Machine:
    """A running embedded machine and how to reach its Docker daemon."""

    lab: str
    docker: str
    accel: str
    memory_mb: int
    pid: int
    inside: tuple[int, int]
    """The ports of loopback that QEMU forwards, to its Docker daemon and to its relay."""
    port: int
    """Of its Docker daemon; this and the next are the proxy's."""
    relay: int
    tls: str
    directory: str
    state: str
    """The directory of the snapshot that it came from; empty where it was booted."""
    proxy: int = 0
    """The process that carries its connections."""

    @property
    def alive(self) -> bool:
        """Whether its QEMU still runs, or it is hibernated and wakes when it is asked something.

        A pid that was given to another program does not count.
        """
        return _is(_is_qemu, self.pid, self.directory) or self.hibernated.exists()

    @property
    def hibernated(self) -> Path:
        """The file that holds it while it has no process.

        While the file is there, it is the machine, and a QEMU beside it has nothing that it lacks: the
        file gets its name when the machine stands still for good, and goes before it runs again.
        """
        return Path(self.directory) / HIBERNATED

    @property
    def reachable(self) -> bool:
        """Whether the proxy still runs."""
        return _is(_is_proxy, self.proxy, self.directory)

    @property
    def directly(self) -> Machine:
        """The same machine, past its proxy."""
        api, relay = self.inside
        return replace(self, port=api, relay=relay)

    @property
    def environment(self) -> dict[str, str]:
        """What an ordinary docker client needs in its environment."""
        return {
            "DOCKER_HOST": f"tcp://127.0.0.1:{self.port}",
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": self.tls,
        }

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=f"{self.tls}/ca.pem")
        context.load_cert_chain(f"{self.tls}/cert.pem", f"{self.tls}/key.pem")
        return context

    def reach(self, pid: int, path: str) -> socket.socket:
        """Connect to a unix socket in the container whose first process is `pid`."""
        address = ("127.0.0.1", self.relay)
        return relay.through_relay(address, self._tls, pid, path, timeout=_ANSWER_SECONDS)

    def wake(self) -> None:
        """Make a restored machine one of its own: another seed, and the time that it is now."""
        self.reseed()
        self.set_clock()

    def set_clock(self) -> float:
        """Set the machine's clock by this one's; returns by how many seconds it is off afterwards.

        The time on the way is lost, so on a busy machine it is set again: a second way is a short one.
        """
        for _ in range(_CLOCK_TRIES):
            off = float(self._asked({"clock": time.time()})["clock"]) - time.time()
            log.debug("the clock of %s is set, and off by %.3f s", self.lab, off)
            if abs(off) < _CLOCK_SECONDS:
                break
        return off

    def reseed(self) -> None:
        """Part its random numbers from those of every machine that came out of the same saved state.

        Their memory is the same, and with it what their kernels make random numbers of. QEMU tells the
        kernel that it is a copy (vmgenid); this one is answered when the new seed is in use.
        """
        bits = self._asked({"entropy": secrets.token_hex(_SEED_BYTES)})["bits"]
        log.debug("%s has a new seed of %d bits", self.lab, bits)

    def _asked(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask its relay something; raises EngineError where it does not answer."""
        try:
            with relay.ask(
                ("127.0.0.1", self.relay), self._tls, request, timeout=_ANSWER_SECONDS
            ) as stream:
                answer: dict[str, Any] = json.loads(stream.makefile().readline())
        except (OSError, ValueError) as problem:
            raise EngineError(
                f"the embedded machine of lab {self.lab!r} does not answer ({type(problem).__name__})",
                hint=f"labkit reset --lab {self.lab}",
            ) from problem
        return answer

    def client(self, *, timeout: float = _ANSWER_SECONDS) -> DockerClient:
        """Return a client of its Docker daemon."""
        import docker
        from docker.tls import TLSConfig

        tls = Path(self.tls)
        config = TLSConfig(
            client_cert=(str(tls / "cert.pem"), str(tls / "key.pem")),
            ca_cert=str(tls / "ca.pem"),
            verify=True,
        )
        # The machine's daemon is ours, so its API version is known and need not be asked for.
        client = docker.DockerClient(
            base_url=f"tcp://127.0.0.1:{self.port}",
            tls=config,
            version=API_VERSION,
            timeout=int(timeout),
        )
        # A proxy or a REQUESTS_CA_BUNDLE in the environment is not meant for a port of loopback.
        client.api.trust_env = False
        hang_up_after_silence(client.api)
        return client

    def connection(self, kind: str) -> Connection:
        """Return its Docker daemon, as an engine of that kind hands it out."""
        return Connection(
            kind=kind,
            accel=self.accel,
            client=self.client(),
            environment=self.environment,
            label=INNER_LAB,
            open_socket=lambda _, pid, path: self.reach(pid, path),
            pid=self.pid,
        )

    def record(self) -> Machine:
        """Write down how to reach it: from now on `find` knows it."""
        files.write_json(Path(self.directory) / RECORD, asdict(self), mode=0o600)
        return self


# --- which there are -----------------------------------------------------------------------------


def lab_directory(lab: str) -> Path:
    """Return the directory of a lab's machine."""
    return paths.machines() / lab


def found() -> list[Machine]:
    """List the machines that run; a directory whose machine has died is not one."""
    machines = []
    for path in paths.machines().glob(f"*/{RECORD}"):
        with contextlib.suppress(EngineError):
            machines.append(read(path.parent))
    return sorted((m for m in machines if m.alive), key=lambda m: m.lab)


def find(lab: str) -> Machine | None:
    """Find the machine of a lab that runs; raises EngineError where another kit started it."""
    directory = lab_directory(lab)
    if not (directory / RECORD).exists():
        return None
    machine = read(directory)
    return machine if machine.alive else None


def read(directory: Path) -> Machine:
    """Read how to reach the machine of a directory; raises EngineError."""
    try:
        row = json.loads((directory / RECORD).read_text())
        return Machine(**{**row, "inside": tuple(row["inside"])})
    except (TypeError, ValueError, KeyError) as problem:
        raise EngineError(
            f"lab {directory.name!r} was started by another version of labkit",
            hint=f"labkit down --lab {directory.name}",
        ) from problem


def leftovers() -> list[str]:
    """List the labs that have a directory here, whether their machine runs or not."""
    return [path.name for path in paths.machines().glob("*") if path.is_dir()]


def crash_log(lab: str, *, patience_s: float = 0) -> str | None:
    """Return the last lines of a machine that exited unexpectedly; None where there is no such one.

    Its process gets so many seconds to end: QEMU hangs up on its clients first.
    """
    directory = lab_directory(lab)
    deadline = time.monotonic() + patience_s
    while find(lab):
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)
    if not (directory / RECORD).exists():
        return None
    lines = tail(directory / "serial.log") + tail(directory / "qemu.log")
    return "\n".join(lines) or "it said nothing"


def tail(file: Path) -> list[str]:
    """Return the last lines of a log; none where it is not there."""
    return file.read_text(errors="replace").splitlines()[-_LAST_LINES:] if file.exists() else []


# --- how one ends --------------------------------------------------------------------------------


def remove(directory: Path) -> None:
    """End the machine of a directory, recorded or not, and remove the directory."""
    end_proxies(directory)  # first: one could start the machine again
    end_qemus(directory)
    shutil.rmtree(directory, ignore_errors=True)


def end_proxies(directory: Path) -> None:
    """End what carries the connections of a machine; the machine goes on."""
    _end(proxies_in, directory)


def end_qemus(directory: Path) -> None:
    """End what runs the machine of a directory, or was to run it."""
    _end(qemus_in, directory)


def _end(list_in: Callable[[Path], list[psutil.Process]], directory: Path) -> None:
    import psutil

    for process in list_in(directory):
        log.info("process %d of %s is killed", process.pid, directory.name)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_for_end(directory, list_in)


def qemus_in(directory: Path) -> list[psutil.Process]:
    """List the QEMU processes that work in a directory: the record may be missing, they cannot hide."""
    return _processes(_is_qemu, directory)


def proxies_in(directory: Path) -> list[psutil.Process]:
    """List the proxies that work in a directory."""
    return _processes(_is_proxy, directory)


def wait_for_end(directory: Path, list_in: Callable[[Path], list[psutil.Process]] = qemus_in) -> None:
    """Wait until no QEMU works in a directory; raises EngineError where one does not end.

    Its directory is what it is known by, so it must not be removed before.
    """
    deadline = time.monotonic() + _END_SECONDS
    while left := list_in(directory):
        if time.monotonic() > deadline:
            pids = " ".join(f"{process.name()} {process.pid}" for process in left)
            raise EngineError(
                f"{pids} of {directory.name} was ended and is still there after {_END_SECONDS:.0f} s",
                hint="the same command again; a process that waits for a disk ends when that answers",
            )
        time.sleep(0.02)


def _is_qemu(process: psutil.Process) -> bool:
    return process.name().startswith("qemu-system")


def _is_proxy(process: psutil.Process) -> bool:
    return PROXY in process.cmdline()


def _processes(kind: Callable[[psutil.Process], bool], directory: Path) -> list[psutil.Process]:
    import psutil

    return [p for p in psutil.process_iter() if _is(kind, p, str(directory))]


def _is(kind: Callable[[psutil.Process], bool], process: psutil.Process | int, directory: str) -> bool:
    """Whether a process is of a kind and works in a directory.

    That tells it from another program with its pid; its start time would not, for it is reckoned from a
    clock that is set now and then. One that was killed and not yet waited for has no directory.
    """
    import psutil

    try:
        found = psutil.Process(process) if isinstance(process, int) else process
        return found.cwd() == directory and kind(found)
    except psutil.Error:
        return False
