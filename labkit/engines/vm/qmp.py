"""Talks to a machine's QEMU over QMP, with QEMU's own library: save, load, stop, go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.errors import EngineError

if TYPE_CHECKING:
    from qemu.qmp import QMPClient

log = logging.getLogger(__name__)

_BANDWIDTH = 1 << 34  # bytes a second, that is, none that holds: it goes to a file
_CHUNK = 1 << 22
_PAUSE = 0.01  # seconds between two looks at how far a migration is
_LISTEN_SECONDS = 10.0
_UNDER_WAY = ("setup", "active", "device", "pre-switchover", "cancelling")

T = TypeVar("T")


def load(
    directory: Path,
    saved: Path,
    *,
    shared_memory: bool,
    verify: Callable[[], None] = lambda: None,
    loaded: Callable[[], None] = lambda: None,
) -> None:
    """Give a QEMU that waits for it what was saved, and let it run when `verify` has returned.

    With `shared_memory`, the memory is in a file of its own and not in the stream. `loaded` is called
    when all has been read and before it runs. Raises what `verify` raises, and EngineError where QEMU
    refuses the stream.
    """

    async def talk(client: QMPClient) -> None:
        verified = asyncio.create_task(asyncio.to_thread(verify))
        await _set_ignore_shared(client, shared_memory)
        await _execute(client, "migrate-incoming", {"uri": "unix:incoming.sock"})
        with (
            _reachable(directory) as near,
            socket.socket(socket.AF_UNIX) as stream,
            saved.open("rb") as file,
        ):
            stream.connect(f"{near}/incoming.sock")
            with contextlib.suppress(BrokenPipeError):  # QEMU tells why it wants no more
                await asyncio.to_thread(stream.sendfile, file)
        await _wait_until_migrated(client)
        await verified
        loaded()
        await _execute(client, "cont")

    _converse(directory, talk)


def save_and_quit(directory: Path, target: Path) -> None:
    """Write the state of a machine's devices and end it; its memory and disks are in files."""

    async def talk(client: QMPClient) -> None:
        await _write(client, directory, target, shared_memory=True)
        # So that what the layers still have in memory gets into their files.
        await _execute(client, "quit")

    _converse(directory, talk)


def save_whole(directory: Path, target: Path, layers: Sequence[str]) -> None:
    """Write a whole machine, memory and all, with its layers beside it; it stands still meanwhile."""

    async def talk(client: QMPClient) -> None:
        try:
            await _write(client, directory, target, shared_memory=False)
            for name in layers:
                await asyncio.to_thread(shutil.copyfile, directory / name, target.parent / name)
        finally:
            await _execute(client, "cont")

    _converse(directory, talk)


def save_whole_and_quit(directory: Path, target: Path, written: Callable[[], bool]) -> bool:
    """Write a whole machine, memory and all, and end it if `written`, called then, returns True.

    It stands still afterwards where it does not; returns whether it was ended.
    """

    async def talk(client: QMPClient) -> bool:
        await _write(client, directory, target, shared_memory=False)
        if not written():
            return False
        await _execute(client, "quit")
        return True

    return _converse(directory, talk)


def pause(directory: Path) -> None:
    """Let a machine stand still, and its clock with it."""

    async def talk(client: QMPClient) -> None:
        await _execute(client, "stop")

    _converse(directory, talk)


def runs(directory: Path) -> bool:
    """Whether a machine runs, or stands still."""

    async def talk(client: QMPClient) -> bool:
        answer = await client.execute("query-status")
        assert isinstance(answer, dict)
        return bool(answer["running"])

    return _converse(directory, talk)


def resume(directory: Path) -> None:
    """Let a machine go on that stands still, be it that who saved it was killed."""

    async def talk(client: QMPClient) -> None:
        while (await _migration(client)).get("status") in _UNDER_WAY:
            await asyncio.sleep(_PAUSE)
        await _execute(client, "cont")

    _converse(directory, talk)


def forwarded_ports(directory: Path) -> dict[int, int]:
    """Ask QEMU which ports of loopback it took, by the machine's: it chose free ones, with no race."""

    async def talk(client: QMPClient) -> object:
        command = {"command-line": "info usernet"}
        return await _execute(client, "human-monitor-command", command)

    text = str(_converse(directory, talk))
    rows = re.findall(r"HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)", text)
    return {int(theirs): int(ours) for ours, theirs in rows}


def qemu_error(directory: Path, what: str) -> EngineError:
    """Return the error for a QEMU that failed, with the end of its log."""
    text = (directory / "qemu.log").read_text(errors="replace").strip()[-500:]
    return EngineError(
        f"QEMU {what}: {text or 'it said nothing'}",
        hint="`labkit doctor` tells what this machine can run",
    )


async def _execute(client: QMPClient, command: str, arguments: dict[str, Any] | None = None) -> object:
    began = time.monotonic()
    result = await client.execute(command, arguments)
    log.debug("QMP %s %s: %.3f s", command, arguments or "", time.monotonic() - began)
    return result


async def _set_ignore_shared(client: QMPClient, ignore: bool) -> None:
    """Set x-ignore-shared: memory in a file that others may map is left out of the stream."""
    capability = {"capability": "x-ignore-shared", "state": ignore}
    await _execute(client, "migrate-set-capabilities", {"capabilities": [capability]})


async def _wait_until_migrated(client: QMPClient) -> None:
    while True:
        answer = await _migration(client)
        if answer.get("status") == "completed":
            return
        if answer.get("status") == "failed":
            raise EngineError(f"QEMU could not carry the machine's state: {answer.get('error-desc')}")
        await asyncio.sleep(_PAUSE)


async def _migration(client: QMPClient) -> dict[str, Any]:
    answer = await client.execute("query-migrate")
    assert isinstance(answer, dict)
    return answer


async def _write(client: QMPClient, directory: Path, target: Path, *, shared_memory: bool) -> None:
    """Stop a machine and write its state; what its disks still hold back is in their files then."""
    outgoing = directory / "outgoing.sock"
    await _execute(client, "stop")
    await _set_ignore_shared(client, shared_memory)
    await _execute(client, "migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
    outgoing.unlink(missing_ok=True)  # of one who was killed
    with (
        _reachable(directory) as near,
        socket.socket(socket.AF_UNIX) as listener,
        target.open("wb") as file,
    ):
        listener.bind(f"{near}/{outgoing.name}")
        try:
            listener.listen(1)
            await _execute(client, "migrate", {"uri": f"unix:{outgoing.name}"})
            stream, _ = await asyncio.to_thread(listener.accept)
            with stream:
                while data := await asyncio.to_thread(stream.recv, _CHUNK):
                    await asyncio.to_thread(file.write, data)
        finally:
            outgoing.unlink()
    await _wait_until_migrated(client)


def _converse(directory: Path, talk: Callable[[QMPClient], Awaitable[T]]) -> T:
    """Talk to the QEMU of a directory; raises EngineError with its log where it does not answer."""
    from qemu.qmp import QMPError

    async def run() -> T:
        client = await _connected(directory)
        try:
            return await talk(client)
        finally:
            with contextlib.suppress(QMPError, EOFError, OSError):
                await client.disconnect()

    try:
        # A notebook's kernel runs an event loop already, and asyncio allows one a thread.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, run()).result()
    except (QMPError, EOFError, OSError) as problem:
        raise qemu_error(directory, f"refused ({problem})") from problem


async def _connected(directory: Path) -> QMPClient:
    """Connect to a QEMU, waiting a moment for one that has made its socket and does not listen yet."""
    from qemu.qmp import ConnectError, QMPClient

    deadline = time.monotonic() + _LISTEN_SECONDS
    while True:
        client = QMPClient("labkit")
        try:
            with _reachable(directory) as near:
                await client.connect(f"{near}/qmp.sock")
        except ConnectError as problem:
            if not isinstance(problem.exc, ConnectionRefusedError) or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            return client


@contextlib.contextmanager
def _reachable(directory: Path) -> Iterator[str]:
    """Give a directory a short name: the path of a unix socket may have 108 bytes and no more."""
    opened = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{opened}"
    finally:
        os.close(opened)
