"""Mark a batch of submissions: each in a process and a sandbox of its own, in parallel, and resumable.

A course folder, laid out as nbgrader wants it, holds the result:

    gradebook.db                              nbgrader's, unless another database is named
    source/A/LAB.ipynb  release/A/LAB.ipynb   the assignment, for nbgrader and its formgrader
    autograded/STUDENT/A/LAB.ipynb            what was run, with its output
    marks/STUDENT/A/LAB.json                  what was found; a batch that goes on looks here first
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import psutil

from labkit import files
from labkit.authoring import release
from labkit.grading import marking, results, sandbox, submissions
from labkit.grading.gradebook import Book
from labkit.grading.marking import Job
from labkit.grading.sandbox import Limits
from labkit.grading.submissions import Submission
from labkit.progress import Progress

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from nbformat import NotebookNode

_OVERTIME_S = 90.0  # that a process may take beside the time its notebook may
_WORKER_OVERHEAD = 2**29  # bytes of memory, beside those of its sandbox

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Lab:
    """A lab in the forms that grading needs."""

    full: str  # nbgrader's source, with solutions, as JSON
    gradable: NotebookNode  # with hidden tests, without solutions
    released: str  # as it was handed out, as JSON


def grade(
    directory: Path,
    *,
    sources: Sequence[Path],
    out: Path,
    course: Path | None = None,
    database: str = "",
    limits: Limits | None = None,
    sandboxed: bool = True,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Mark every submission in a folder; returns one row per submission (`results.row`).

    The CSV file ``out`` has the same rows. ``course`` is nbgrader's course folder, by default that of
    `course_of`. What was marked before, from the same source, is not run again; its points may have
    been changed by hand since. Raises SandboxError where no sandbox can be had, UsageError where there
    is no submission or the gradebook does not fit.
    """
    limits, progress = limits or Limits(), progress or Progress()
    if sandboxed:
        sandbox.require()
    paths_of_labs = {path.stem: path for path in sources}
    course = (course or course_of(directory, out)).resolve()
    found, notes = submissions.find(directory, paths_of_labs, leave_out=[course])
    for note in notes:
        progress.say(note)
    course.mkdir(parents=True, exist_ok=True)
    book = Book(course, database)
    labs = {lab: _read_lab(paths_of_labs[lab]) for lab in sorted({s.lab for s in found})}
    _prepare_course(course, book, found, labs)
    jobs = _jobs(found, labs, course, limits, sandboxed)
    to_mark = [job for job in jobs if not results.is_marked(job)]
    for job in jobs:
        if job not in to_mark and not book.has(job.submission):
            _enter(book, job)
    with (
        progress.stage(f"{len(to_mark)} of {len(jobs)} submissions") as step,
        closing(_mark_all(to_mark)) as marked,
    ):
        for done, job in enumerate(marked, 1):
            _enter(book, job)
            step.fraction(done / len(to_mark))
            step.note(f"{job.submission.student} {job.submission.lab}")
    rows = [results.row(book, job) for job in jobs]
    results.write_csv(out, rows)
    return rows


def course_of(directory: Path, out: Path) -> Path:
    """Return the course folder of a folder of submissions.

    It is that folder where it has nbgrader's layout, else one beside the table ``out``, with its name.
    """
    return directory if (directory / "submitted").is_dir() else out.with_suffix("")


def _read_lab(source: Path) -> _Lab:
    full = nbformat.writes(release.nbgrader_source(source))  # type: ignore[no-untyped-call]
    return _Lab(str(full), release.gradable(source), release.build(source))


def _prepare_course(
    course: Path, book: Book, found: Sequence[Submission], labs: Mapping[str, _Lab]
) -> None:
    """Write the assignments into the course folder, and their questions into the gradebook."""
    for assignment, name in sorted({(s.assignment, s.lab) for s in found}):
        lab = labs[name]
        files.write_text(course / "source" / assignment / f"{name}.ipynb", lab.full)
        files.write_text(course / "release" / assignment / f"{name}.ipynb", lab.released)
        book.prepare(assignment, name, lab.gradable)


def _jobs(
    found: Sequence[Submission],
    labs: Mapping[str, _Lab],
    course: Path,
    limits: Limits,
    sandboxed: bool,
) -> list[Job]:
    kit = results.hash_of_kit()
    texts = {
        name: str(nbformat.writes(lab.gradable))  # type: ignore[no-untyped-call]
        for name, lab in labs.items()
    }
    jobs = []
    for s in found:
        key = results.key_of(s, [kit, texts[s.lab], repr(limits), repr(sandboxed)])
        jobs.append(Job(s, texts[s.lab], labs[s.lab].released, course, key, limits, sandboxed))
    return jobs


def _enter(book: Book, job: Job) -> None:
    book.enter(job.submission, results.read_record(job)["questions"])


# --- the processes -------------------------------------------------------------------------------


def _mark_all(jobs: Sequence[Job]) -> Generator[Job]:
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
    with closing(_Workers(waiting[0].limits)) as workers:
        while waiting or workers.busy:
            while waiting and workers.has_room:
                workers.start(waiting.pop(0))
            yield from workers.wait()


class _Workers:
    """Processes that mark, as many at once as there are processors and memory for."""

    def __init__(self, limits: Limits) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["labkit.grading.marking", "matplotlib", "nbgrader.utils"])
        available = psutil.virtual_memory().available
        by_memory = int(available // (limits.memory + _WORKER_OVERHEAD))
        self._most = max(1, min(os.cpu_count() or 1, by_memory))
        self._running: dict[ForkServerProcess, tuple[Job, float]] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="labkit-")
        Path(self._scratch.name).chmod(0o711)  # where root grades, a sandbox passes through as nobody

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
            target=marking.mark, args=(job, self._scratch.name), daemon=True
        )
        process.start()
        deadline = time.monotonic() + job.limits.notebook_seconds + _OVERTIME_S
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
        self._scratch.cleanup()
