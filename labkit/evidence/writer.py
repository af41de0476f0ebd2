"""Adds lines to a file of evidence, each chained to the one before by its hash."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import redact
from labkit.evidence.format import LINE, MAX_BYTES, MAX_TEXT, START, TEXTS

if TYPE_CHECKING:
    import io

    from labkit.evidence.cells import Cell

# Goes on while a laptop sleeps, where the system has such a clock.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Writer:
    """Adds lines to a file of evidence, for threads and for other processes that do so too."""

    def __init__(self, path: Path, learner: str) -> None:
        self.path, self.learner = path, learner
        self.session = os.urandom(4).hex()
        self._lock = threading.Lock()  # a file's lock is the whole process's
        self._file: io.FileIO | None = None
        self._size, self._number, self._hash = -1, 0, START
        # The wall clock may be set while a lab runs; within a session time only goes forward.
        self._epoch = time.time() - time.clock_gettime(_CLOCK)
        self._open()

    def now(self) -> float:
        """Seconds since the epoch, on a clock that only goes forward."""
        return self._epoch + time.clock_gettime(_CLOCK)

    def write(
        self, kind: str, cell: Cell, started: float, row: Mapping[str, Any], *, docker: str
    ) -> None:
        """Write what was asked at `started` and has its answer now; raises OSError."""
        ended = self.now()
        bounded, cut = _bounded(row)
        with self._lock, self._locked() as file:
            head = {
                "number": self._number + 1,
                "kind": kind,
                "session": self.session,
                "run": cell.run,
                "cell": cell.id,
                "source": cell.source,
                "learner": self.learner,
                "docker": docker,
                "started": datetime.fromtimestamp(started, UTC).isoformat(timespec="microseconds"),
                "seconds": round(ended - started, 6),
            }
            whole = {**head, **bounded, **({"cut": cut} if cut else {}), "previous": self._hash}
            text = json.dumps(whole, separators=(",", ":"))[:-1].encode()
            digest = hashlib.sha256(text).hexdigest()
            line = b'%s,"hash":"%s"}\n' % (text, digest.encode())
            if self._size + len(line) > MAX_BYTES:
                raise OSError(errno.EFBIG, f"it has reached {MAX_BYTES // 2**20} MiB")
            if (file.write(line) or 0) < len(line):  # no room for all of it
                file.truncate(self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size, self._number, self._hash = self._size + len(line), self._number + 1, digest

    def _open(self) -> io.FileIO:
        self._file = open(self.path, "ab+", buffering=0)  # noqa: SIM115
        self._size = -1
        return self._file

    @contextlib.contextmanager
    def _locked(self) -> Iterator[io.FileIO]:
        """Hold the file alone, and know its last line."""
        file = self._file or self._open()
        if not os.fstat(file.fileno()).st_nlink:  # somebody removed it, to begin anew
            file.close()
            file = self._open()
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.fstat(file.fileno()).st_size != self._size:
                self._catch_up(file)
            yield file
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _catch_up(self, file: io.FileIO) -> None:
        """Go on where the file ends; half a line, of a process that was killed, is taken off."""
        file.seek(0)
        data = file.readall()[: MAX_BYTES + 1]
        whole = data.rfind(b"\n") + 1
        if whole < len(data) <= MAX_BYTES:
            file.truncate(whole)
        *_, last = data[:whole].split(b"\n")[:-1] or [b""]
        found = LINE.fullmatch(last)
        number = re.match(rb'\{"number":(\d{1,9}),', last)
        self._number = int(number[1]) if number else data.count(b"\n")
        self._hash = found[2].decode() if found else START
        self._size = os.fstat(file.fileno()).st_size


@functools.cache
def writer(path: Path, learner: str) -> Writer:
    """Return this process's writer of a file: one session, however often a lab is attached."""
    return Writer(path, learner)


def _bounded(row: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Leave out texts that are too long, and tell what was left out; blot out join tokens."""
    kept, cut = dict(row), {}
    for name in TEXTS:
        text = kept.get(name)
        if not isinstance(text, str):
            continue
        if len(text) > MAX_TEXT:
            digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()
            kept[name], cut[name] = "", {"characters": len(text), "sha256": digest}
        else:
            kept[name] = redact(text)
    if "argv" in kept:
        kept["argv"] = [redact(word) for word in kept["argv"]]
    return kept, cut
