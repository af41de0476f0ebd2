"""Mark a batch of submissions: each in a process and a sandbox of its own, in parallel, and resumable.

A course folder, laid out as nbgrader wants it, holds the result:

    gradebook.db                              nbgrader's, unless another database is named
    source/A/LAB.ipynb  release/A/LAB.ipynb   the assignment, for nbgrader and its formgrader
    autograded/STUDENT/A/LAB.ipynb            what was run, with its output
    marks/STUDENT/A/LAB.json                  what was found; a batch that goes on looks here first
    marks/STUDENT/A/LAB.entered               hashes of the answers that the gradebook was told of
    class.html                                the page about the whole class, for instructors
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from labkit import files
from labkit.authoring import release
from labkit.evidence import signing
from labkit.grading import (
    archive,
    inspection,
    likeness,
    overview,
    processes,
    results,
    sandbox,
    submissions,
)
from labkit.grading.gradebook import Book
from labkit.grading.inspection import Inspected, name_of
from labkit.grading.lateness import Due
from labkit.grading.likeness import Answer
from labkit.grading.marking import Job
from labkit.grading.sandbox import Limits
from labkit.grading.submissions import Submission
from labkit.nbgrader_cells import points_of
from labkit.progress import Progress

if TYPE_CHECKING:
    from nbformat import NotebookNode


MarkAll = Callable[[Sequence[Job]], Generator[Job]]
"""Marks submissions; gives each job when its record is there."""


@dataclass(frozen=True)
class _Lab:
    """A lab in the forms that grading needs."""

    full: str  # nbgrader's source, with solutions, as JSON
    gradable: NotebookNode  # with hidden tests, without solutions
    released: str  # as it was handed out, as JSON


@dataclass(frozen=True)
class Costs:
    """What is taken off: points of a question for each wrong answer before and each hint; lateness."""

    per_try: float = 0.0
    per_hint: float = 0.0
    due: Due = field(default_factory=Due)

    def taken_off(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return a question of a record with the points that are left; never fewer than none."""
        lost = question["tries"] * self.per_try + question["hints"] * self.per_hint
        points = question["points"]
        return {**question, "points": max(0.0, points - lost) if points and lost else points}


@dataclass(frozen=True)
class Looks:
    """What is looked for beside the marks."""

    roster: Mapping[str, str] = field(default_factory=dict)  # the learner's id by the folder's name
    handed_out: datetime | None = None  # evidence that is older is a finding
    public_key: Path | None = None  # of the host that signs evidence
    compare: bool = False  # report evidence and answers that are too alike


def grade(
    directory: Path,
    *,
    sources: Sequence[Path],
    out: Path,
    course: Path | None = None,
    database: str = "",
    limits: Limits | None = None,
    sandboxed: bool = True,
    looks: Looks | None = None,
    costs: Costs | None = None,
    mark_all: MarkAll = processes.mark_all,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Mark every submission in a folder or a ZIP file; returns one row per submission (`results.row`).

    The CSV file ``out`` has the same rows, and ``course``/class.html sums them up. ``course`` is
    nbgrader's course folder, by default that of `course_of`. What was marked before, from the same
    source, is not run again; its points may have been changed by hand since. ``mark_all`` does the
    work, on this machine by default. Raises SandboxError where no sandbox can be had, UsageError where
    there is no submission, the gradebook does not fit, or ZIP file or public key cannot be read.
    """
    limits, looks, progress = limits or Limits(), looks or Looks(), progress or Progress()
    costs = costs or Costs()
    if sandboxed:
        sandbox.require()
    if looks.public_key is not None:
        signing.public_key(looks.public_key)
    course = (course or course_of(directory, out)).resolve()
    with files.scratch() as unpacked:
        if directory.is_file():
            for note in archive.unpack(directory, unpacked):
                progress.say(note)
            directory = unpacked
        paths_of_labs = {path.stem: path for path in sources}
        found, notes = submissions.find(directory, paths_of_labs, [course], looks.roster)
        for note in notes:
            progress.say(note)
        labs = {lab: _read_lab(paths_of_labs[lab]) for lab in sorted({s.lab for s in found})}
        refused = [results.refused_row(s, _most(labs[s.lab])) for s in found if s.refused]
        marked = _mark(
            [s for s in found if not s.refused],
            labs,
            course,
            database,
            limits,
            sandboxed,
            looks,
            costs,
            mark_all,
            progress,
        )
    rows = sorted([*marked, *refused], key=lambda row: (row["student"], row["assignment"], row["lab"]))
    results.write_csv(out, rows)
    files.write_text(course / overview.NAME, overview.page(rows))
    return rows


def _mark(
    found: Sequence[Submission],
    labs: Mapping[str, _Lab],
    course: Path,
    database: str,
    limits: Limits,
    sandboxed: bool,
    looks: Looks,
    costs: Costs,
    mark_all: MarkAll,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Mark submissions into a course folder and look across them; returns their rows."""
    course.mkdir(parents=True, exist_ok=True)
    book = Book(course, database)
    _prepare_course(course, book, found, labs)
    jobs = _jobs(found, labs, course, limits, sandboxed)
    to_mark = [job for job in jobs if not results.is_marked(job)]
    for job in jobs:
        if job not in to_mark:
            _enter(book, job, costs)
    with (
        progress.stage(f"{len(to_mark)} of {len(jobs)} submissions") as step,
        closing(mark_all(to_mark)) as marked,
    ):
        for done, job in enumerate(marked, 1):
            _enter(book, job, costs)
            step.fraction(done / len(to_mark))
            step.note(f"{job.submission.student} {job.submission.lab}")
    inspected = inspection.inspect(found, public_key=looks.public_key, handed_out=looks.handed_out)
    nothing = Inspected("")
    rows = [
        results.row(book, job, inspected.get(name_of(job.submission), nothing), costs.due)
        for job in jobs
    ]
    for job, row in zip(jobs, rows, strict=True):
        _enter_lateness(book, job, row, costs.due)
    if looks.compare:
        for row, alike in zip(rows, _compare(jobs, labs, inspected), strict=True):
            row["alike"] = alike
    return rows


def _most(lab: _Lab) -> float:
    """Return the points that a lab gives at most."""
    return sum(points_of(cell) for cell in lab.gradable.cells)


def _compare(
    jobs: Sequence[Job], labs: Mapping[str, _Lab], inspected: Mapping[str, Inspected]
) -> Iterator[list[dict[str, Any]]]:
    """Yield for each submission the others that are too alike, and what they share."""
    answers = []
    for job in jobs:
        s = job.submission
        answers += [
            Answer(name_of(s), s.student, s.lab, question["id"], question["answer"])
            for question in results.read_record(job)["questions"]
        ]
    known = {
        name: [cell["source"] for text in (lab.full, lab.released) for cell in _cells(text)]
        for name, lab in labs.items()
    }
    pairs = likeness.alike(answers, known)
    for job in jobs:
        name = name_of(job.submission)
        evidence = inspected[name].alike if name in inspected else {}
        shared = {other: [f"evidence: {text}" for text in texts] for other, texts in evidence.items()}
        for (one, other), sentences in pairs.items():
            if name in (one, other):
                shared.setdefault(other if name == one else one, []).extend(sentences)
        yield [{"with": other, "shared": told} for other, told in sorted(shared.items())]


def _cells(text: str) -> list[NotebookNode]:
    cells: list[NotebookNode] = nbformat.reads(text, as_version=4).cells  # type: ignore[no-untyped-call]
    return cells


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


def _enter(book: Book, job: Job, costs: Costs) -> None:
    """Enter the points of a submission; what has changed is told to who gave points by hand."""
    questions = results.read_record(job)["questions"]
    changed = results.changed(job, questions)
    book.enter(job.submission, [costs.taken_off(question) for question in questions], changed)
    if changed:
        results.keep_entered(job, questions)


def _enter_lateness(book: Book, job: Job, row: Mapping[str, Any], due: Due) -> None:
    """Enter when a submission came and was due, and what that costs, as its row has it."""
    came = datetime.fromisoformat(row["handed_in"]) if row["handed_in"] else None
    book.enter_lateness(job.submission, came, due.date(job.submission.lab), row["lost_late"])
