"""What is found of one submission, as it is kept: the notebook that was run, and the record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import nbformat

from labkit import files
from labkit.authoring import markup
from labkit.evidence.audit import Finding
from labkit.grading import markdown
from labkit.grading.judge import Verdict, not_judged
from labkit.nbgrader_cells import Cell, check_of, grade_id_of, question_of, role_of
from labkit.outcomes import Outcome

if TYPE_CHECKING:
    from pathlib import Path

    from nbformat import NotebookNode

BY_HAND = "by hand"  # the status of an answer that a person still has to read
_MAX_MESSAGE = 600  # characters


class _Kept(Protocol):
    """Where the notebook and the record of a submission are kept."""

    @property
    def notebook(self) -> Path: ...

    @property
    def record(self) -> Path: ...


class Record:
    """A notebook while it is marked: the verdicts so far, by question, the findings, and the notes."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.notebook = notebook
        self.verdicts: dict[str, Verdict] = {}
        self.findings: list[Finding] = []
        self.counts: Mapping[str, tuple[int, int]] = {}
        """Of each question, how many wrong answers and hints the evidence has."""
        self.predictions: list[dict[str, str]] = []

    def report(self, question: str | None, sentence: str) -> None:
        """Add a finding on a question; None: on all of them."""
        self.findings.append(Finding(question, sentence))

    def checks(self) -> Iterator[NotebookNode]:
        """Yield the check cells."""
        for cell in self.notebook.cells:
            if check_of(cell) is not None and cell.cell_type == "code":
                yield cell

    def could_not_run(self, why: str) -> None:
        """Let each check without a verdict say why there is none."""
        for cell in self.checks():
            if (question := question_of(cell)) not in self.verdicts:
                self.verdicts[question], cell.outputs = not_judged(why)

    def save(self, kept: _Kept, status: str, problem: str, *, key: str, seconds: float) -> None:
        """Write the notebook that was run and, last, the record (`labkit.grading.marking`)."""
        graded = [cell for cell in self.notebook.cells if role_of(cell).is_graded]
        record = {
            "key": key,
            "status": status,
            "problem": one_line(problem),
            "questions": [self._question(cell) for cell in graded],
            "predictions": [{n: one_line(v) for n, v in row.items()} for row in self.predictions],
            "findings": [
                {"question": f.question, "sentence": one_line(f.sentence)} for f in self.findings
            ],
            "seconds": round(seconds, 1),
        }
        for cell in self.notebook.cells:
            if cell.cell_type == "markdown":  # an instructor's browser shows it: it must not run there
                cell.source = markdown.harmless(cell.source)
        text = str(nbformat.writes(self.notebook))  # type: ignore[no-untyped-call]
        files.write_text(kept.notebook, text.encode(errors="replace").decode())
        files.write_json(kept.record, record)

    def _question(self, cell: NotebookNode) -> dict[str, Any]:
        """Return what the record says about the question of a graded cell."""
        from nbgrader.utils import determine_grade

        name = question_of(cell)
        points, most = determine_grade(cell)
        answers = [c.source for c in self.notebook.cells if _answers(c, name)]
        tries, hints = self.counts.get(name, (0, 0))
        in_words = cell.cell_type == "markdown"
        found = {"id": name, "points": points, "max": most, "answer": "".join(answers)}
        found |= {"tries": tries, "hints": hints, "in_words": in_words}
        if in_words:
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
        return {**found, "status": outcome.value, "message": one_line(message), "asked": asked}


def name_of(cell: NotebookNode) -> str:
    """Name a cell to a person."""
    if name := grade_id_of(cell):
        return f"the cell {name}"
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return f"the cell that begins with `{first[:60]}`"


def one_line(text: str) -> str:
    """Make of a stranger's text one line without control characters, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MAX_MESSAGE else f"{line[: _MAX_MESSAGE - 3]}..."


def _answers(cell: Cell, question: str) -> bool:
    return role_of(cell).is_answer and question_of(cell) == question
