"""Mark one submission, in a process of its own: run its notebook again, and write what was found.

What is marked is the learner's notebook with the source's check cells, run on the learner's own
evidence; nbgrader's rules give the points. Whatever a submission does costs its own points at most.

`mark` leaves two files of a submission in the course folder: the notebook that was run, with its
output, and the record, which is written last:

    key         hash of everything that the marks depend on; empty: to be marked again
    status      graded, missing, unreadable or stopped; problem says why, in one line
    questions   one per graded cell: id, points (None: a person gives them), max, answer, status (one
                of the four outcomes, or "by hand"), message, asked (what the check says it asks for)
    findings    question (None: all of them), sentence
    seconds     that marking took
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nbformat

from labkit import files
from labkit.authoring import markup
from labkit.errors import CouldNotRun
from labkit.evidence import audit
from labkit.evidence.audit import Finding
from labkit.evidence.files import beside as evidence_beside
from labkit.grading import sandbox, submissions
from labkit.grading.kernel import CellResult, Kernel, KernelLost, KernelStartError, error_output
from labkit.grading.merge import Merged, merge
from labkit.grading.sandbox import Limits
from labkit.grading.submissions import Submission, UnreadableError
from labkit.nbgrader_cells import Cell, check_of, grade_id_of, question_of, role_of
from labkit.outcomes import Outcome, explained

if TYPE_CHECKING:
    from nbformat import NotebookNode

BY_HAND = "by hand"  # the status of an answer that a person still has to read
_WORKER_MEMORY = 6 * 2**30  # bytes of addresses of a process that reads a stranger's files
_MAX_MESSAGE = 600  # characters
# Before each check, the functions that judge are loaded again: what a cell above has put in their place
# is gone. A cell that is bent on it can still deceive: it runs in the same process as its check.
_RELOAD_CHECKS = (
    "import importlib as _i, sys as _s; _s.modules.pop('labkit.checks', None); "
    "checks = _i.import_module('labkit.checks'); del _i, _s"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What a process of its own needs to mark one submission; all of it can be pickled."""

    submission: Submission
    gradable: str  # the lab's notebook with hidden tests, as JSON
    released: str  # as it was handed out
    course: Path
    key: str  # hash of everything that the marks depend on
    limits: Limits
    sandboxed: bool

    @property
    def notebook(self) -> Path:
        """Where the notebook that was run is kept."""
        s = self.submission
        return self.course / "autograded" / s.student / s.assignment / f"{s.lab}.ipynb"

    @property
    def record(self) -> Path:
        """Where the record is kept."""
        s = self.submission
        return self.course / "marks" / s.student / s.assignment / f"{s.lab}.json"


class Verdict(NamedTuple):
    """What one check said: its outcome, and a sentence."""

    outcome: Outcome
    message: str


def mark(job: Job, scratch: str) -> None:
    """Mark one submission and write what was found; runs in a process of its own.

    A process that is killed removes nothing, so its temporary files go to ``scratch``, which the batch
    removes.
    """
    tempfile.tempdir = scratch
    resource.setrlimit(resource.RLIMIT_AS, (_WORKER_MEMORY, _WORKER_MEMORY))
    began = time.monotonic()
    try:
        cells = submissions.read(job.submission.path)
    except UnreadableError as why:
        seconds = time.monotonic() - began
        give_up(job, str(why), status="unreadable", key=job.key, seconds=seconds)
        return
    gradable = _notebook(job.gradable)
    merged = merge(gradable, _notebook(job.released), cells)
    marking = _Marking(merged.notebook)
    marking.findings += [*merged.findings, *_evidence_findings(job.submission, cells, gradable)]
    try:
        problem = marking.run(job)
    except KernelStartError as why:
        give_up(job, str(why))
        return
    marking.blame_missing_answers(merged)
    status = "stopped" if problem else "graded"
    marking.save(job, status, problem, key=job.key, seconds=time.monotonic() - began)


def give_up(
    job: Job, why: str, *, status: str = "stopped", key: str = "", seconds: float = 0.0
) -> None:
    """Write that a submission was not run; without a key the next batch tries it again."""
    _log.info("not run, %s: %s", job.submission.path, why)
    merged = merge(_notebook(job.gradable), _notebook(job.released), [])
    marking = _Marking(merged.notebook)
    marking.could_not_run(f"There is nothing to judge: {why}.")
    marking.save(job, status, why, key=key, seconds=seconds)


def _notebook(text: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def _evidence_findings(
    submission: Submission, cells: Sequence[NotebookNode], gradable: NotebookNode
) -> list[Finding]:
    path = submission.evidence
    if path is not None:
        return audit.problems(path, learner=submission.student, notebook={"cells": cells})
    if _needs_evidence(gradable):
        return [Finding(None, f"no evidence was handed in ({evidence_beside(submission.path).name})")]
    return []


def _needs_evidence(notebook: NotebookNode) -> bool:
    """Whether a notebook attaches to a swarm, and its submission needs evidence."""
    return any("attach(" in cell.source for cell in notebook.cells if cell.cell_type == "code")


class _Marking:
    """A notebook while it is marked: the verdicts so far, by question, and the findings."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.notebook = notebook
        self.verdicts: dict[str, Verdict] = {}
        self.findings: list[Finding] = []

    def run(self, job: Job) -> str:
        """Run the notebook; returns what stopped it before its end, empty where nothing did.

        Raises KernelStartError.
        """
        with tempfile.TemporaryDirectory(prefix="labkit-") as directory:
            folder = Path(directory)
            environment = self._environment(job, folder)
            kernel = Kernel(folder, environment, job.limits, sandboxed=job.sandboxed)
            stopped_by, place = "", "its beginning"
            try:
                with kernel.running():
                    for cell in self.notebook.cells:
                        place = _name_of(cell)
                        if cell.cell_type == "code" and cell.source.strip():
                            self._run_cell(kernel, cell)
            except KernelLost as why:
                stopped_by = str(why)
                self._report(None, f"the notebook was stopped in {place}: {stopped_by}")
            for attempt in kernel.attempts:
                self._report(None, f"its code {attempt}")
        if stopped_by:
            self.could_not_run(f"The notebook was stopped before this check: {stopped_by}.")
        return stopped_by

    def could_not_run(self, why: str) -> None:
        """Let each check that was not run say why; nbgrader gives full points to one without output."""
        for cell in self.notebook.cells:
            question = check_of(cell)
            if question is not None and cell.cell_type == "code" and question not in self.verdicts:
                self.verdicts[question] = Verdict(Outcome.COULD_NOT_RUN, why)
                cell.outputs = [error_output(CouldNotRun.__name__, why)]

    def blame_missing_answers(self, merged: Merged) -> None:
        """Say of a check that did not pass that the answer cell is missing, where it is."""
        for question in merged.without_answer & self.verdicts.keys():
            if self.verdicts[question].outcome != Outcome.PASS:
                self.verdicts[question] = Verdict(Outcome.UNANSWERED, "The answer cell is missing.")

    def save(self, job: Job, status: str, problem: str, *, key: str, seconds: float) -> None:
        """Write the notebook that was run and, last, the record."""
        for cell in self.notebook.cells:
            if cell.cell_type == "markdown":  # an instructor's browser shows it: it must not run there
                cell.source = cell.source.replace("<", "&lt;")
        graded = [cell for cell in self.notebook.cells if role_of(cell).is_graded]
        record = {
            "key": key,
            "status": status,
            "problem": _one_line(problem),
            "questions": [self._question(cell) for cell in graded],
            "findings": [
                {"question": f.question, "sentence": _one_line(f.sentence)} for f in self.findings
            ],
            "seconds": round(seconds, 1),
        }
        text = str(nbformat.writes(self.notebook))  # type: ignore[no-untyped-call]
        files.write_text(job.notebook, text.encode(errors="replace").decode())
        files.write_json(job.record, record)

    def _environment(self, job: Job, folder: Path) -> Mapping[str, str]:
        """Put the evidence into the kernel's folder; returns the kernel's variables."""
        submission = job.submission
        environment = {"LABKIT_LEARNER": submission.student, "NBGRADER_EXECUTION": "autograde"}
        path = submission.evidence
        if path is not None:
            shutil.copyfile(path, folder / path.name)
        elif _needs_evidence(self.notebook):  # it will say that its evidence is not there
            path = evidence_beside(submission.path)
        if path is not None:
            inside = sandbox.HOME if job.sandboxed else folder
            environment["LABKIT_REPLAY"] = str(inside / path.name)
        return environment if job.sandboxed else {**os.environ, **environment}

    def _run_cell(self, kernel: Kernel, cell: NotebookNode) -> None:
        question = check_of(cell)
        if question is None:
            result = kernel.run(cell.source, cell_id=cell.id)
        else:
            result, self.verdicts[question] = _run_check(kernel, cell)
        cell.outputs = result.outputs
        if result.timed_out:
            self._report(question, f"{_name_of(cell)} {result.message.removeprefix('It ').rstrip('.')}")
        if result.error == "MemoryError":
            self._report(question, f"{_name_of(cell)} asked for more memory than there is")
        if result.dropped:
            size = f"{result.dropped / 1e6:.0f} MB"
            self._report(question, f"{_name_of(cell)} wrote {size} of output that was not kept")

    def _question(self, cell: NotebookNode) -> dict[str, Any]:
        """Return what the record says about the question of a graded cell."""
        from nbgrader.utils import determine_grade

        name = question_of(cell)
        points, most = determine_grade(cell)
        answers = [c.source for c in self.notebook.cells if _answers(c, name)]
        found = {"id": name, "points": points, "max": most, "answer": "".join(answers)}
        if cell.cell_type == "markdown":
            status, message = BY_HAND, "This answer is read by a person."
            if points is not None:
                status, message = Outcome.UNANSWERED.value, "There is no answer."
            return {**found, "status": status, "message": message, "asked": ""}
        outcome, message = self.verdicts[name]
        if outcome == Outcome.PASS and points == 0:
            outcome = Outcome.COULD_NOT_RUN
            message = (
                "It passed, but something was written to stderr, for which nbgrader gives no points."
            )
        asked = markup.docstring(cell.source)
        return {**found, "status": outcome.value, "message": _one_line(message), "asked": asked}

    def _report(self, question: str | None, sentence: str) -> None:
        self.findings.append(Finding(question, sentence))


def _run_check(kernel: Kernel, cell: NotebookNode) -> tuple[CellResult, Verdict]:
    """Run a check cell: what the learner sees of it first, so that a hidden test does not speak."""
    kernel.run(_RELOAD_CHECKS, quiet=True)
    visible = markup.without_hidden_tests(cell.source)
    has_hidden = visible != cell.source
    if has_hidden:
        result = kernel.run(visible, cell_id=cell.id)
        if not result.ok:
            return result, _verdict(result)
    result = kernel.run(cell.source, cell_id=cell.id)
    if has_hidden and not result.ok:
        message = "What you see of this check passes; a further test does not."
        return result, Verdict(Outcome.FAIL, message)
    return result, _verdict(result)


def _verdict(result: CellResult) -> Verdict:
    if result.ok:
        printed = "".join(o.text for o in result.outputs if o.get("name") == "stdout")
        return Verdict(Outcome.PASS, printed)
    return Verdict(*explained(result.error, result.message))


def _answers(cell: Cell, question: str) -> bool:
    return role_of(cell).is_answer and question_of(cell) == question


def _name_of(cell: NotebookNode) -> str:
    """Name a cell to a person."""
    if name := grade_id_of(cell):
        return f"the cell {name}"
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return f"the cell that begins with `{first[:60]}`"


def _one_line(text: str) -> str:
    """Make of a stranger's text one line without control characters, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 3]}..."
