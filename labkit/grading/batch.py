"""Mark a batch of submissions: each in a process and a cage of its own, side by side, and resumable.

What is marked is the learner's notebook with the source's check cells, run again on the learner's own
evidence. nbgrader's rules give the points. Whatever a submission does costs its own points at most.

A course folder, laid out as nbgrader wants it, holds the result:

    gradebook.db                              nbgrader's, unless another database is named
    source/A/LAB.ipynb  release/A/LAB.ipynb   the assignment, for nbgrader and its formgrader
    autograded/STUDENT/A/LAB.ipynb            what was run, with its output
    marks/STUDENT/A/LAB.json                  what was found; a batch that goes on looks here first
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import psutil

from labkit.authoring import release
from labkit.authoring.runner import STATUS_OF
from labkit.evidence import audit
from labkit.evidence import files as evidence
from labkit.evidence.audit import Finding
from labkit.grading import kernel as execution
from labkit.grading import sandbox as cage
from labkit.grading import submissions as handed_in
from labkit.grading.gradebook import Book
from labkit.grading.sandbox import Limits
from labkit.grading.submissions import Submission, Unreadable, grade_id
from labkit.progress import Progress

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from nbformat import NotebookNode

_WORKER_MEMORY = 6 * 2**30  # bytes of addresses of a process that reads a stranger's files
_LATE_S = 90.0  # that a process may take beside the time its notebook may
_MAX_MESSAGE = 600
# Before each check, the functions that judge are loaded anew: what a cell above has put in their place
# is gone. A cell that is bent on it can still deceive: it runs in the same process as its check.
_FRESH = (
    "import importlib as _i, sys as _s; _s.modules.pop('labkit.checks', None); "
    "checks = _i.import_module('labkit.checks'); del _i, _s"
)


@dataclass(frozen=True)
class _Job:
    """What a process of its own needs to mark one submission; all of it can be sent there."""

    submission: Submission
    gradable: str
    released: str
    course: Path
    key: str
    limits: Limits
    caged: bool

    @property
    def notebook(self) -> Path:
        s = self.submission
        return self.course / "autograded" / s.student / s.assignment / f"{s.lab}.ipynb"

    @property
    def record(self) -> Path:
        s = self.submission
        return self.course / "marks" / s.student / s.assignment / f"{s.lab}.json"


def grade(
    directory: Path,
    *,
    sources: Sequence[Path],
    out: Path,
    course: Path | None = None,
    database: str = "",
    limits: Limits | None = None,
    caged: bool = True,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Mark every submission in a folder; returns a row each, which the CSV file ``out`` has too.

    ``course`` is nbgrader's course folder: without one it is ``directory`` where that is one, else a
    folder beside ``out`` with its name. What was marked before, from the same source, is not run again;
    its points may have been changed by hand since. Raises CageError where no cage can be had.
    """
    limits, progress = limits or Limits(), progress or Progress()
    if caged:
        cage.require()
    labs = {path.stem: path for path in sources}
    course = (course or course_of(directory, out)).resolve()
    submissions, notes = handed_in.find(directory, labs, leave=[course])
    for note in notes:
        progress.say(note)
    course.mkdir(parents=True, exist_ok=True)
    book = Book(course, database)
    texts = {}
    for lab in sorted({s.lab for s in submissions}):
        gradable = release.gradable(labs[lab])
        text = str(nbformat.writes(gradable))  # type: ignore[no-untyped-call]
        texts[lab] = (text, release.build(labs[lab]), gradable)
    for assignment, lab in sorted({(s.assignment, s.lab) for s in submissions}):
        _, released, gradable = texts[lab]
        full = str(nbformat.writes(release.nbgrader_source(labs[lab])))  # type: ignore[no-untyped-call]
        _write(course / "source" / assignment / f"{lab}.ipynb", full)
        _write(course / "release" / assignment / f"{lab}.ipynb", released)
        book.prepare(assignment, lab, gradable)
    kit = _kit()
    jobs = []
    for s in submissions:
        text, released, _ = texts[s.lab]
        key = _key(s, [kit, text, repr(limits), repr(caged)])
        jobs.append(_Job(s, text, released, course, key, limits, caged))

    todo = [job for job in jobs if _known(job) is None]
    for job in jobs:
        if job not in todo and not book.has(job.submission):
            _enter(book, job)
    with (
        progress.stage(f"{len(todo)} of {len(jobs)} submissions") as step,
        closing(_marked(todo)) as marked,
    ):
        for done, job in enumerate(marked, 1):
            _enter(book, job)
            step.fraction(done / len(todo))
            step.note(f"{job.submission.student} {job.submission.lab}")
    rows = [_row(book, job) for job in jobs]
    _write_csv(out, rows)
    return rows


def course_of(directory: Path, out: Path) -> Path:
    """Return the course folder that belongs to a folder of submissions."""
    return directory if (directory / "submitted").is_dir() else out.with_suffix("")


# --- the batch ---------------------------------------------------------------------------------------


def _marked(jobs: Sequence[_Job]) -> Generator[_Job]:
    """Mark submissions in processes of their own, as many as there are processors and memory for."""
    if not jobs:
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["labkit.grading", "matplotlib", "nbgrader.utils", "jupyter_client"])
    room = int(psutil.virtual_memory().available // (jobs[0].limits.memory + 2**29))
    most = max(1, min(os.cpu_count() or 1, room))
    waiting = []
    for job in reversed(jobs):
        if job.submission.path.exists():
            waiting.append(job)
        else:
            _give_up(job, "it was not handed in", status="missing", key=job.key)
            yield job
    running: dict[ForkServerProcess, tuple[_Job, float]] = {}
    scratch = tempfile.TemporaryDirectory(prefix="labkit-")
    Path(scratch.name).chmod(0o711)  # where root grades, a cage passes through as nobody
    try:
        while waiting or running:
            while waiting and len(running) < most:
                job = waiting.pop()
                job.record.unlink(missing_ok=True)
                process = context.Process(target=_mark, args=(job, scratch.name), daemon=True)
                process.start()
                running[process] = (job, time.monotonic() + job.limits.notebook_seconds + _LATE_S)
            multiprocessing.connection.wait([p.sentinel for p in running], timeout=1)
            for process, (job, latest) in list(running.items()):
                if process.is_alive() and time.monotonic() < latest:
                    continue
                why = f"the process that marked it ended with code {process.exitcode}"
                if process.is_alive():
                    process.kill()
                    why = "the process that marked it did not end"
                process.join()
                del running[process]
                if not job.record.is_file():
                    _give_up(job, why)
                yield job
    finally:
        for process in running:
            process.kill()
            process.join()
        scratch.cleanup()


def _mark(job: _Job, scratch: str) -> None:
    """Mark one submission and write what was found; runs in a process of its own.

    A process that is killed puts nothing away, so what it and its libraries lay down for a while is in
    ``scratch``, which is the batch's.
    """
    import resource

    tempfile.tempdir = scratch

    resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, _WORKER_MEMORY))
    began = time.monotonic()
    submission = job.submission
    gradable, released = _notebook(job.gradable), _notebook(job.released)
    status, problem, findings = "graded", "", []
    try:
        handed = handed_in.read(submission.path)
    except Unreadable as why:
        handed, status, problem = [], "unreadable", str(why)
    restored = handed_in.restore(gradable, released, handed)
    messages: dict[str, tuple[str, str]] = {}
    if handed:
        findings = [*restored.findings, *_evidence_findings(submission, handed, gradable)]
        try:
            problem = _run(job, restored, messages, findings)
        except execution.NoKernel as why:
            _give_up(job, str(why))
            return
        if problem:
            status = "stopped"
    else:
        _not_run(restored.notebook, f"There is nothing to judge: {problem}.", messages)
    _save(job, restored.notebook, status, problem, messages, findings, time.monotonic() - began)


def _give_up(job: _Job, why: str, *, status: str = "stopped", key: str = "") -> None:
    """Write down that a submission was not run; without a key the next batch tries it again."""
    gradable, released = _notebook(job.gradable), _notebook(job.released)
    notebook = handed_in.restore(gradable, released, []).notebook
    messages: dict[str, tuple[str, str]] = {}
    _not_run(notebook, f"There is nothing to judge: {why}.", messages)
    _save(job, notebook, status, why, messages, [], 0.0, key=key)


def _notebook(text: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


# --- one submission ----------------------------------------------------------------------------------


def _evidence_findings(
    submission: Submission, handed: Sequence[NotebookNode], gradable: NotebookNode
) -> list[Finding]:
    path = submission.evidence
    if path is not None:
        return audit.problems(path, learner=submission.student, notebook={"cells": handed})
    if _attaches(gradable):
        return [Finding(None, f"no evidence was handed in ({evidence.beside(submission.path).name})")]
    return []


def _attaches(notebook: NotebookNode) -> bool:
    """Whether a lab needs a swarm, and its submission evidence."""
    return any("attach(" in cell.source for cell in notebook.cells if cell.cell_type == "code")


def _run(
    job: _Job,
    restored: handed_in.Restored,
    messages: dict[str, tuple[str, str]],
    findings: list[Finding],
) -> str:
    """Run the notebook; returns what stopped it before its end, empty where nothing did."""
    submission = job.submission
    with tempfile.TemporaryDirectory(prefix="labkit-") as directory:
        folder = Path(directory)
        environment = {"LABKIT_LEARNER": submission.student, "NBGRADER_EXECUTION": "autograde"}
        path = submission.evidence
        if path is not None:
            shutil.copyfile(path, folder / path.name)
        elif _attaches(restored.notebook):  # it will say that its evidence is not there
            path = evidence.beside(submission.path)
        if path is not None:
            environment["LABKIT_REPLAY"] = str((cage.HOME if job.caged else folder) / path.name)
        if not job.caged:
            environment = {**os.environ, **environment}
        kernel = execution.Kernel(folder, environment, job.limits, caged=job.caged)
        lost, place = "", "its beginning"
        try:
            with kernel.running():
                for cell in restored.notebook.cells:
                    place = _called(cell)
                    if cell.cell_type == "code" and cell.source.strip():
                        _run_cell(kernel, cell, messages, findings)
        except execution.KernelLost as why:
            lost = str(why)
            findings.append(Finding(None, f"the notebook was stopped in {place}: {lost}"))
        findings += [Finding(None, f"its code {sentence}") for sentence in kernel.attempts]
    if lost:
        _not_run(restored.notebook, f"The notebook was stopped before this check: {lost}.", messages)
    for question in restored.missing & messages.keys():
        if messages[question][0] != "pass":
            messages[question] = ("unanswered", "The answer cell is missing.")
    return lost


def _run_cell(
    kernel: execution.Kernel,
    cell: NotebookNode,
    messages: dict[str, tuple[str, str]],
    findings: list[Finding],
) -> None:
    question = release.check_id(cell)
    if question is not None:
        kernel.run(_FRESH, quiet=True)
        visible = release.without_hidden_tests(cell.source)
        if visible != cell.source:
            ran = kernel.run(visible, cell_id=cell.id)
            if not ran.ok:
                cell.outputs = ran.outputs
                messages[question] = _outcome(ran)
                return
    ran = kernel.run(cell.source, cell_id=cell.id)
    cell.outputs = ran.outputs
    if question is not None:
        messages[question] = _outcome(ran)
        if not ran.ok and visible != cell.source:
            messages[question] = ("fail", "What you see of this check passes; a further test does not.")
    if ran.kind == "TimeoutError" and ran.message.startswith("It took longer"):
        findings.append(Finding(question, f"{_called(cell)} {ran.message[3:].rstrip('.')}"))
    if ran.kind == "MemoryError":
        findings.append(Finding(question, f"{_called(cell)} asked for more memory than there is"))
    if ran.dropped:
        told = f"{_called(cell)} wrote {ran.dropped / 1e6:.0f} MB of output that was not kept"
        findings.append(Finding(question, told))


def _called(cell: NotebookNode) -> str:
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return (
        f"the cell {grade_id(cell)}" if grade_id(cell) else f"the cell that begins with `{first[:60]}`"
    )


def _outcome(ran: execution.Ran) -> tuple[str, str]:
    """Return a check's status and its sentence."""
    if ran.ok:
        printed = "".join(o.text for o in ran.outputs if o.get("name") == "stdout")
        return "pass", printed
    if ran.kind in STATUS_OF:
        return STATUS_OF[ran.kind], ran.message
    return "could not run", f"The check ended in {ran.kind}: {ran.message}"


def _not_run(notebook: NotebookNode, why: str, messages: dict[str, tuple[str, str]]) -> None:
    """Let each check that was not run say why; nbgrader gives full points to a check without output."""
    for cell in notebook.cells:
        question = release.check_id(cell)
        if question is not None and cell.cell_type == "code" and question not in messages:
            messages[question] = ("could not run", why)
            cell.outputs = [execution.error("CouldNotRun", why)]


def _save(
    job: _Job,
    notebook: NotebookNode,
    status: str,
    problem: str,
    messages: Mapping[str, tuple[str, str]],
    findings: Sequence[Finding],
    seconds: float,
    *,
    key: str | None = None,
) -> None:
    """Write the notebook that was run and, last, what was found."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # an instructor's browser shows it: it must not run there
            cell.source = cell.source.replace("<", "&lt;")
    questions = [_question(cell, notebook, messages) for cell in notebook.cells if _is_graded(cell)]
    record = {
        "key": job.key if key is None else key,
        "status": status,
        "problem": _clean(problem),
        "questions": questions,
        "findings": [{"question": f.question, "sentence": _clean(f.sentence)} for f in findings],
        "seconds": round(seconds, 1),
    }
    text = str(nbformat.writes(notebook))  # type: ignore[no-untyped-call]
    _write(job.notebook, text.encode(errors="replace").decode())
    _write(job.record, json.dumps(record, indent=1))


def _is_graded(cell: NotebookNode) -> bool:
    return bool(cell.metadata.get("nbgrader", {}).get("grade"))


def _question(
    cell: NotebookNode, notebook: NotebookNode, messages: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    from nbgrader.utils import determine_grade

    name = grade_id(cell).partition("-")[2]
    points, most = determine_grade(cell)
    answers = [c.source for c in notebook.cells if grade_id(c) == f"answer-{name}"]
    told: dict[str, Any] = {"id": name, "points": points, "max": most, "answer": "".join(answers)}
    if cell.cell_type == "markdown":
        unanswered = (
            ("unanswered", "There is no answer."),
            ("by hand", "This answer is read by a person."),
        )
        told["status"], told["message"] = unanswered[points is None]
        return {**told, "asked": ""}
    told["status"], message = messages[name]
    if told["status"] == "pass" and points == 0:
        told["status"] = "could not run"
        message = "It passed, but something was written to stderr, for which nbgrader gives no points."
    told["message"] = _clean(message)
    told["asked"] = release.docstring(cell.source)
    return told


def _clean(text: str) -> str:
    """Make of a stranger's text one line without control characters, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 3]}..."


# --- what is kept ------------------------------------------------------------------------------------


def _kit() -> str:
    """Return the hash of the library: marks depend on what it does."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _key(submission: Submission, what: Iterable[str]) -> str:
    """Return the hash of all that a submission's marks depend on."""
    digest = hashlib.sha256()
    for text in what:
        digest.update(hashlib.sha256(text.encode()).digest())
    for path in (submission.path, submission.evidence):
        digest.update(b"|")
        if path is not None and path.is_file() and not path.is_symlink():
            with suppress(OSError), path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _known(job: _Job) -> dict[str, Any] | None:
    """Return what was found when the same was marked before, None where it was not."""
    with suppress(OSError, ValueError):
        record: dict[str, Any] = json.loads(job.record.read_text())
        return record if record["key"] == job.key and job.notebook.is_file() else None
    return None


def _enter(book: Book, job: _Job) -> None:
    book.enter(job.submission, json.loads(job.record.read_text())["questions"])


def _row(book: Book, job: _Job) -> dict[str, Any]:
    """Return what is told of a submission; points are the gradebook's, where people may change them."""
    submission = job.submission
    record = json.loads(job.record.read_text())
    scores = book.scores(submission)
    questions = []
    for question in record["questions"]:
        kept = {k: question[k] for k in ("id", "status", "max", "message")}
        questions.append({**kept, "points": scores[question["id"]].points})
    return {
        "student": submission.student,
        "assignment": submission.assignment,
        "lab": submission.lab,
        "points": sum(q["points"] or 0 for q in questions),
        "max": sum(q["max"] for q in questions),
        "to_mark_by_hand": sum(scores[q["id"]].by_hand for q in questions),
        "status": record["status"],
        "problem": record["problem"],
        "questions": questions,
        "findings": record["findings"],
        "seconds": record["seconds"],
    }


def _write(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


_COLUMNS = (
    *("student", "assignment", "lab", "points", "max", "to_mark_by_hand", "status", "problem"),
    *("questions", "findings"),
)


def _write_csv(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _COLUMNS, extrasaction="ignore")
        table.writeheader()
        for row in rows:
            marks = [f"{q['id']} {_points(q['points'])}/{_points(q['max'])}" for q in row["questions"]]
            found = [
                f"{f['question']}: {f['sentence']}" if f["question"] else f["sentence"]
                for f in row["findings"]
            ]
            told = {**row, "questions": "; ".join(marks), "findings": "\n".join(found)}
            table.writerow({k: _cell(v) for k, v in told.items() if k in _COLUMNS})
    partial.replace(out)


def _points(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _cell(value: object) -> object:
    """Keep a stranger's text from being taken for a formula by a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
