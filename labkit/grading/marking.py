"""Mark one submission, in a process of its own: run its notebook again, and write what was found.

Two kernels do it, each in a sandbox of its own, one after the other. In the first the learner's
notebook runs on the learner's own evidence; it only produces values. In the second, the judge
(`labkit.grading.judge`) makes the lab's measurements anew and judges the values. nbgrader's rules give
the points. Whatever a submission does costs its own points at most.

`mark` leaves two files of a submission in the course folder: the notebook that was run, with its
output, and the record, which is written last:

    key         hash of everything that the marks depend on; empty: to be marked again
    status      graded, missing, unreadable or stopped; problem says why, in one line
    questions   one per graded cell: id, points (None: a person gives them), max, answer, status (one
                of the four outcomes, or "by hand"), message, asked (what the check says it asks for),
                tries and hints (how many wrong answers and hints the evidence has), in_words
                (whether a person reads the answer)
    predictions question, name, predicted, measured, as the evidence has them
    findings    question (None: all of them), sentence
    seconds     that marking took
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from labkit.errors import UsageError
from labkit.evidence import audit, notes, reader
from labkit.evidence.audit import Finding
from labkit.evidence.files import beside as evidence_beside
from labkit.grading import sandbox, submissions, values, workers
from labkit.grading.judge import Snapshot, Verdict, judge, names_read
from labkit.grading.kernel import Kernel, KernelLost, KernelStartError, calling
from labkit.grading.merge import merge
from labkit.grading.record import Record, name_of
from labkit.grading.sandbox import Limits
from labkit.grading.submissions import Submission, UnreadableError
from labkit.nbgrader_cells import check_of, question_of
from labkit.outcomes import Outcome

if TYPE_CHECKING:
    from nbformat import NotebookNode


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

    @property
    def entered(self) -> Path:
        """Where it is kept which answers the gradebook was told of; marking again leaves it alone."""
        return self.record.with_suffix(".entered")


def mark(job: Job, scratch: str) -> None:
    """Mark one submission and write what was found; runs in a process of its own.

    A process that is killed removes nothing, so its temporary files go to ``scratch``, which the batch
    removes.
    """
    tempfile.tempdir = scratch
    workers.limit_memory()
    began = time.monotonic()
    try:
        cells = submissions.read(job.submission.path)
    except UnreadableError as why:
        seconds = time.monotonic() - began
        give_up(job, str(why), status="unreadable", key=job.key, seconds=seconds)
        return
    with tempfile.TemporaryDirectory(prefix="labkit-") as directory:
        marking = _Marking(job, Path(directory), cells)
        try:
            problem = marking.run()
        except KernelStartError as why:
            give_up(job, str(why))
            return
    status = "stopped" if problem else "graded"
    marking.record.save(job, status, problem, key=job.key, seconds=time.monotonic() - began)


def give_up(
    job: Job, why: str, *, status: str = "stopped", key: str = "", seconds: float = 0.0
) -> None:
    """Write that a submission was not run; without a key the next batch tries it again."""
    _log.info("not run, %s: %s", job.submission.path, why)
    record = Record(merge(_notebook(job.gradable), _notebook(job.released), []).notebook)
    record.could_not_run(f"There is nothing to judge: {why}.")
    record.save(job, status, why, key=key, seconds=seconds)


def _notebook(text: str) -> NotebookNode:
    notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


class _Marking:
    """One submission while it is marked: first the learner's kernel, then the judge's.

    ``folder`` gets what both kernels may read: the evidence, copied once, so that what is judged is
    what was looked at.
    """

    def __init__(self, job: Job, folder: Path, cells: Sequence[NotebookNode]) -> None:
        self._job, self._folder = job, folder
        self._gradable, released = _notebook(job.gradable), _notebook(job.released)
        self._visible = {cell.id: cell.source for cell in released.cells}
        self._merged = merge(self._gradable, released, cells)
        self.record = Record(self._merged.notebook)
        self.record.findings += self._merged.findings
        self._evidence = self._copied_evidence()
        self.record.findings += self._evidence_findings(cells)
        if self._evidence is not None:
            with contextlib.suppress(UsageError):  # it holds no evidence, as a finding says
                lines = reader.read(self._evidence).lines
                self.record.counts = notes.counts(lines)
                self.record.predictions = notes.predictions(lines)
        self._names = names_read(self._gradable)
        self._snapshots: dict[str, Snapshot] = {}

    def run(self) -> str:
        """Run the notebook, then its checks; returns what stopped it, empty where nothing did.

        Raises KernelStartError.
        """
        stopped_by = self._run_learners()
        judgement = judge(self._gradable, self._snapshots, self._kernel())
        record = self.record
        for cell in record.checks():
            question = question_of(cell)
            if question in judgement.verdicts:
                record.verdicts[question] = judgement.verdicts[question]
                cell.outputs = judgement.outputs[question]
            for name in judgement.tables.get(question, ()):
                record.report(question, f"the table {name} was taken as the learner's code made it")
        if judgement.problem:
            record.report(None, f"the judge was stopped: {judgement.problem}")
            record.could_not_run(f"The judge was stopped before this check: {judgement.problem}.")
        if stopped_by:
            record.could_not_run(f"The notebook was stopped before this check: {stopped_by}.")
        record.could_not_run("The notebook did not come to this check.")
        for question in self._merged.without_answer & record.verdicts.keys():
            if record.verdicts[question].outcome != Outcome.PASS:
                record.verdicts[question] = Verdict(Outcome.UNANSWERED, "The answer cell is missing.")
        return stopped_by or judgement.problem

    def _kernel(self) -> Kernel:
        return Kernel(
            self._folder, self._environment(), self._job.limits, sandboxed=self._job.sandboxed
        )

    def _run_learners(self) -> str:
        """Run the learner's notebook, and take the values that its checks read."""
        kernel = self._kernel()
        stopped_by, place = "", "its beginning"
        try:
            with kernel.running():
                for cell in self.record.notebook.cells:
                    place = name_of(cell)
                    if cell.cell_type == "code":
                        self._run_cell(kernel, cell)
        except KernelLost as why:
            stopped_by = str(why)
            self.record.report(None, f"the notebook was stopped in {place}: {stopped_by}")
        for attempt in kernel.attempts:
            self.record.report(None, f"its code {attempt}")
        return stopped_by

    def _run_cell(self, kernel: Kernel, cell: NotebookNode) -> None:
        question = check_of(cell)
        if (names := self._names.get(cell.id)) is not None:
            try:
                sent = kernel.ask(calling("values.export", names)) if names else "{}"
                self._snapshots[cell.id] = values.read(sent, names)
            except values.NotReadable as why:
                self.record.report(question, f"{name_of(cell)} could not be judged: {why}")
        # A check runs here too, as the learner has it, since later cells may use what it sets.
        code = cell.source if question is None else self._visible[cell.id]
        if not code.strip():
            return
        result = kernel.run(code, cell_id=cell.id)
        if question is None:
            cell.outputs = result.outputs
        if result.timed_out:
            told = result.message.removeprefix("It ").rstrip(".")
            self.record.report(question, f"{name_of(cell)} {told}")
        if result.error == "MemoryError":
            self.record.report(question, f"{name_of(cell)} asked for more memory than there is")
        if result.dropped:
            size = f"{result.dropped / 1e6:.0f} MB"
            self.record.report(question, f"{name_of(cell)} wrote {size} of output that was not kept")

    # --- evidence ------------------------------------------------------------------------------

    def _copied_evidence(self) -> Path | None:
        """Copy the evidence, unpacked, if it can be read; a finding says why where it cannot."""
        path = self._job.submission.evidence
        if path is None:
            return None
        try:
            data = reader.content(path)
        except UsageError as problem:
            self.record.report(None, str(problem.args[0]))
            return None
        copy = self._folder / evidence_beside(self._job.submission.path).name
        copy.write_bytes(data)
        return copy

    def _evidence_findings(self, cells: Sequence[NotebookNode]) -> list[Finding]:
        submission = self._job.submission
        if self._evidence is not None:
            student = submission.student
            return audit.problems(self._evidence, learner=student, notebook={"cells": cells})
        if submission.evidence is None and self._needs_evidence():
            name = evidence_beside(submission.path).name
            return [Finding(None, f"no evidence was handed in ({name})")]
        return []

    def _needs_evidence(self) -> bool:
        """Whether the lab attaches to a swarm, and its submissions need evidence."""
        cells = self._gradable.cells
        return any("attach(" in cell.source for cell in cells if cell.cell_type == "code")

    def _environment(self) -> Mapping[str, str]:
        """Return the variables of the two kernels."""
        submission = self._job.submission
        environment = {"LABKIT_LEARNER": submission.student, "NBGRADER_EXECUTION": "autograde"}
        path = self._evidence
        if path is None and self._needs_evidence():  # it will say that its evidence is not there
            path = evidence_beside(submission.path)
        if path is not None:
            inside = sandbox.HOME if self._job.sandboxed else self._folder
            environment["LABKIT_REPLAY"] = str(inside / path.name)
        return environment if self._job.sandboxed else {**os.environ, **environment}
