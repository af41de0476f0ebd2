"""Mark submissions on the workers of a Dask scheduler, each in a sandbox of its own there.

What marking needs goes with the task, and what it found comes back, so the machines share no disk. A
worker needs this same labkit and its sandbox. A worker that is lost costs its submissions nothing: Dask
gives them to another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import subprocess
import sys
import threading
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit import files
from labkit.errors import LabkitError, UsageError
from labkit.evidence.files import open_plain
from labkit.grading import marking, processes, results, sandbox
from labkit.grading.marking import Job

_log = logging.getLogger(__name__)

_CONNECT_S = 15.0
_AHEAD = 2  # tasks for each thread of a worker that are on their way, so that none waits for the next
_MOST_BYTES = 128 * 2**20  # of a submission that is sent; a larger one is marked here
_HINT = "dask scheduler and dask worker start one; --scheduler takes its address, tcp://HOST:8786"


@dataclass(frozen=True)
class _Task:
    """A job, with the files that it reads, by their names, and the hash of the kit that made it."""

    job: Job
    content: Mapping[str, bytes]
    kit: str


@dataclass(frozen=True)
class _Marked:
    """What marking has written."""

    notebook: str
    record: str


@dataclass(frozen=True)
class _Refused:
    """Why a worker marks nothing at all."""

    message: str
    hint: str


def mark_all(jobs: Sequence[Job], scheduler: str) -> Generator[Job]:
    """Mark submissions on the workers of a scheduler; yields each job when its record is there.

    What cannot be sent (no plain file, or too large) is marked on this machine, at the end. Raises
    UsageError where no scheduler or no worker answers, or one has another labkit or no sandbox.
    """
    sent = [job for job in jobs if _can_be_sent(job)]
    with contextlib.closing(_connected(scheduler)) as client:
        yield from _sent(client, sent, results.hash_of_kit())
    yield from processes.mark_all([job for job in jobs if job not in sent])


def _connected(scheduler: str) -> Any:  # distributed has no types
    """Return a client of a scheduler that has workers; raises UsageError."""
    try:
        import distributed
    except ImportError as problem:
        raise UsageError(
            "marking on a scheduler needs Dask, which is not installed",
            hint="pip install 'labkit[dask]', here and where the workers run",
        ) from problem
    try:
        start: Any = distributed.Client
        client = start(scheduler, timeout=_CONNECT_S, set_as_default=False, name="labkit-grade")
    except (OSError, TimeoutError, ValueError) as problem:
        raise UsageError(f"no Dask scheduler answers at {scheduler}", hint=_HINT) from problem
    try:
        client.wait_for_workers(1, timeout=_CONNECT_S)
    except TimeoutError as problem:
        client.close()
        raise UsageError(f"the scheduler at {scheduler} has no workers", hint=_HINT) from problem
    return client


def _sent(client: Any, jobs: Sequence[Job], kit: str) -> Iterator[Job]:
    """Have workers mark jobs, a few ahead of those that are done; yields each when it is written."""
    import distributed

    waiting = list(jobs)
    running: dict[str, Job] = {}
    done: Any = distributed.as_completed(loop=client.loop)  # type: ignore[no-untyped-call]

    def send() -> None:
        most = _AHEAD * max(1, sum(client.nthreads().values()))
        while waiting and len(running) < most:
            job = waiting.pop(0)
            job.record.unlink(missing_ok=True)
            key = f"labkit-mark-{uuid.uuid4()}"  # the same submission may be marked again
            running[key] = job
            done.add(client.submit(_mark_here, _task(job, kit), key=key, pure=False))

    send()
    for future in done:
        job = running.pop(future.key)
        _take(job, future)
        yield job
        send()


def _take(job: Job, future: Any) -> None:
    """Write what a worker found; raises UsageError where it marks nothing at all."""
    try:
        found = future.result()
    except Exception as problem:  # whatever Dask makes of workers that are lost, again and again
        _log.info("%s: %r", job.submission.path, problem)
        marking.give_up(job, f"the workers that marked it were lost ({type(problem).__name__})")
        return
    if isinstance(found, _Refused):
        raise UsageError(found.message, hint=found.hint)
    files.write_text(job.notebook, found.notebook)
    files.write_text(job.record, found.record)  # last: it says that all is there


def _can_be_sent(job: Job) -> bool:
    try:
        return sum(path.lstat().st_size for path in _paths(job)) <= _MOST_BYTES and all(
            path.is_file() and not path.is_symlink() for path in _paths(job)
        )
    except OSError:
        return False


def _paths(job: Job) -> list[Path]:
    submission = job.submission
    return [submission.path, *([submission.evidence] if submission.evidence else [])]


def _task(job: Job, kit: str) -> _Task:
    content = {}
    for path in _paths(job):
        with contextlib.suppress(OSError, UsageError), open_plain(path) as file:
            content[path.name] = file.read(_MOST_BYTES)
    return _Task(job, content, kit)


# --- on a worker ---------------------------------------------------------------------------------


def _mark_here(task: _Task) -> _Marked | _Refused:
    """Mark a submission in a process of its own, in folders that are gone afterwards."""
    where = f"the worker on {os.uname().nodename}"
    if results.hash_of_kit() != task.kit:
        return _Refused(f"{where} has another labkit, and its marks may differ", "install the same one")
    if task.job.sandboxed:
        try:
            sandbox.require()
        except LabkitError as problem:
            return _Refused(f"{where} has no sandbox: {problem.args[0]}", problem.hint)
    with files.scratch() as folder:
        folder.chmod(0o711)  # where root grades, a sandbox passes through as nobody
        handed_in = folder / "handed-in"
        handed_in.mkdir()
        for name, content in task.content.items():
            (handed_in / name).write_bytes(content)
        path = handed_in / task.job.submission.path.name
        job = replace(
            task.job, submission=replace(task.job.submission, path=path), course=folder / "course"
        )
        scratch = folder / "scratch"
        scratch.mkdir(mode=0o711)
        _in_a_process(job, scratch)
        return _Marked(job.notebook.read_text("utf-8"), job.record.read_text("utf-8"))


def _in_a_process(job: Job, scratch: Path) -> None:
    """Mark a submission in a process that may be killed; there is a record in any case."""
    # Not with multiprocessing: Dask runs its workers as daemons, which may start none of that.
    with subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE) as child:
        assert child.stdin
        pickle.dump((job, str(scratch)), child.stdin)
        child.stdin.flush()  # and not closed: its end tells that this worker has ended
        try:
            code = child.wait(job.limits.notebook_seconds + processes.OVERTIME_S)
            why = f"the process that marked it ended with code {code}"
        except subprocess.TimeoutExpired:
            child.kill()
            why = "the process that marked it did not end"
    if not job.record.is_file():
        marking.give_up(job, why)


def _main() -> None:
    """Mark what comes on standard input, and end where the worker does."""

    def end_with_it() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    job, scratch = pickle.load(sys.stdin.buffer)
    threading.Thread(target=end_with_it, daemon=True).start()
    marking.mark(job, scratch)


if __name__ == "__main__":
    _main()
