"""One process at a time changes a lab, and what one that was killed had begun is known afterwards.

Whoever makes, removes or saves a lab holds its lock, `LAB.lock` beside the machines' directories. The
file is locked by the kernel, so the lock goes with its process. While a step runs that must not stop
half way, the file names it: one that is there and that nobody holds was cut short.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from labkit import paths
from labkit.errors import EngineError

log = logging.getLogger(__name__)

Step = Literal["making", "saving"]
"""`making`: what is there is not a lab yet. `saving`: its machine stands still meanwhile."""

_ENDING = ".lock"
_PATIENCE = 600.0  # seconds; making a swarm where nothing is kept takes minutes
_PAUSE = 0.05  # seconds between two tries


class Begun(NamedTuple):
    """A step that has not ended: what it is, the process that began it, and whether that still runs."""

    step: Step
    pid: int
    held: bool


@dataclass
class Hold:
    """The right to change a lab, for as long as the body of `hold` runs."""

    _file: int
    cut_short: Step | None
    """What the last one to change it had begun when it was killed; None where it came to its end."""

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Run the body as a step that must not stop half way."""
        os.pwrite(self._file, f"{step} {os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            self.done()

    def done(self) -> None:
        """Note that nothing is half done any more."""
        os.ftruncate(self._file, 0)
        self.cut_short = None


@contextmanager
def hold(lab: str, *, patience: float | None = None) -> Iterator[Hold]:
    """Let this process alone change a lab; waits for another one that does.

    It waits `patience` seconds, without it as long as a lab takes to be made. Who finds `cut_short`
    mends that first. Raises EngineError where the other one does not end, or no lock can be had.
    """
    path = _path(lab)
    file = _locked(path, lab, _PATIENCE if patience is None else patience)
    left = _read(file)
    held = Hold(file, left[0] if left else None)
    if held.cut_short:
        log.info("%s lab %s was cut short", held.cut_short, lab)
    try:
        yield held
    finally:
        if held.cut_short is None:  # else the next one has to know
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other labs are there
                path.parent.rmdir()
        os.close(file)


def begun(lab: str) -> Begun | None:
    """Return the step on a lab that has not ended, None where there is none."""
    try:
        file = os.open(_path(lab), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        found = _read(file)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
    finally:
        os.close(file)
    return Begun(*found, held) if found else None


def left() -> list[str]:
    """List the labs that have a lock, held or left over."""
    return sorted(path.name.removesuffix(_ENDING) for path in paths.machines().glob(f"*{_ENDING}"))


def _path(lab: str) -> Path:
    return paths.machines() / f"{lab}{_ENDING}"


def _locked(path: Path, lab: str, patience: float) -> int:
    """Return the descriptor of a lock that is held and still has its name."""
    deadline = time.monotonic() + patience
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, FileExistsError):
            continue  # another one has just removed the empty directory, or makes it
        except OSError as problem:
            raise EngineError(
                f"no lock can be had for lab {lab!r}: {problem.strerror}: {path}",
                hint="set LABKIT_HOME to a directory that you can write to",
            ) from problem
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it may have removed it meanwhile, and then it is not the next one's lock.
            if _is_at(file, path):
                return file
        except BlockingIOError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if time.monotonic() > deadline:
            now = begun(lab)
            by = f"process {now.pid} is {now.step}" if now else "another process changes"
            raise EngineError(
                f"{by} lab {lab!r}, and did not end in {patience:.0f} s",
                hint=f"end it{f': kill {now.pid}' if now else ''}; then the same command again",
            )
        time.sleep(_PAUSE)


def _is_at(file: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), path.stat())
    return False


def _read(file: int) -> tuple[Step, int] | None:
    """Return the step that a lock names and its process; one that cannot be read was half written."""
    text = os.pread(file, 64, 0).decode(errors="replace")
    if not text:
        return None
    step, _, pid = text.strip().partition(" ")
    return "saving" if step == "saving" else "making", int(pid) if pid.isdigit() else 0
