"""Mark submissions in processes of their own on this machine, as many at once as it has room for."""

from __future__ import annotations

import logging
import multiprocessing.connection
import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import psutil

from labkit import files
from labkit.grading import marking, workers
from labkit.grading.marking import Job
from labkit.grading.sandbox import Limits

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

OVERTIME_S = 90.0  # that a process may take beside the time its notebook may
_WORKER_OVERHEAD = 2**29  # bytes of memory, beside those of its sandbox

_log = logging.getLogger(__name__)


def mark_all(jobs: Sequence[Job]) -> Generator[Job]:
    """Mark submissions in processes of their own; yields each job when its record is there."""
    waiting = []
    for job in jobs:
        if job.submission.path.exists():
            waiting.append(job)
        else:
            marking.give_up(job, "it was not handed in", status="missing", key=job.key)
            yield job
    if not waiting:
        return
    with closing(_Workers(waiting[0].limits)) as started:
        while waiting or started.busy:
            while waiting and started.has_room:
                started.start(waiting.pop(0))
            yield from started.wait()


class _Workers:
    """Processes that mark, as many at once as there are processors and memory for."""

    def __init__(self, limits: Limits) -> None:
        self._context = workers.context()
        available = psutil.virtual_memory().available
        by_memory = int(available // (limits.memory + _WORKER_OVERHEAD))
        self._most = max(1, min(os.cpu_count() or 1, by_memory))
        self._running: dict[ForkServerProcess, tuple[Job, float]] = {}
        self._left = ExitStack()
        self._scratch = self._left.enter_context(files.scratch())
        self._scratch.chmod(0o711)  # where root grades, a sandbox passes through as nobody

    @property
    def busy(self) -> bool:
        """Whether any of them runs."""
        return bool(self._running)

    @property
    def has_room(self) -> bool:
        """Whether one more may start."""
        return len(self._running) < self._most

    def start(self, job: Job) -> None:
        """Begin to mark a submission."""
        _log.info("marking %s", job.submission.path)
        job.record.unlink(missing_ok=True)
        process = self._context.Process(
            target=marking.mark, args=(job, str(self._scratch)), daemon=True
        )
        process.start()
        deadline = time.monotonic() + job.limits.notebook_seconds + OVERTIME_S
        self._running[process] = (job, deadline)

    def wait(self) -> Iterator[Job]:
        """Wait a second at most; yields the jobs that have ended, or had to be ended."""
        multiprocessing.connection.wait([p.sentinel for p in self._running], timeout=1)
        for process, (job, deadline) in list(self._running.items()):
            if process.is_alive() and time.monotonic() < deadline:
                continue
            why = f"the process that marked it ended with code {process.exitcode}"
            if process.is_alive():
                process.kill()
                why = "the process that marked it did not end"
            process.join()
            del self._running[process]
            if not job.record.is_file():
                marking.give_up(job, why)
            yield job

    def close(self) -> None:
        """End those that still run, and remove their temporary files."""
        for process in self._running:
            process.kill()
            process.join()
        self._left.close()
