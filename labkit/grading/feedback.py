"""Write what each learner gets back: one page per lab, question by question, on the learner's own data.

A page shows what was asked, what the learner answered, and what the check found. It has no solution and
nothing of a hidden test. What the learner's own code printed is not on it, because that code may have
read both.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from labkit import files
from labkit.authoring.markup import hidden_lines
from labkit.authoring.report import render
from labkit.errors import UsageError
from labkit.grading.gradebook import Book
from labkit.grading.submissions import Submission


def write(course: Path, database: str = "") -> list[Path]:
    """Write feedback/STUDENT/ASSIGNMENT/LAB.html for what was marked in a course folder.

    Returns the pages. The points and comments are the gradebook's, with what people gave by hand.
    Raises UsageError where nothing was marked.
    """
    records = sorted((course / "marks").glob("*/*/*.json"))
    if not records:
        raise UsageError(f"{course} holds no marks", hint="labkit grade DIR --out grades.csv, first")
    book = Book(course, database)
    written = []
    for path in records:
        student, assignment = path.parts[-3:-1]
        submission = Submission(student, assignment, path.stem, path)
        page = course / "feedback" / student / assignment / f"{path.stem}.html"
        source = course / "source" / assignment / f"{path.stem}.ipynb"
        record = json.loads(path.read_text(encoding="utf-8"))
        files.write_text(page, _page(record, submission, book, _hidden_lines(source)))
        written.append(page)
    return written


def _page(record: dict[str, Any], submission: Submission, book: Book, hidden: Collection[str]) -> str:
    scores = book.scores(submission)
    questions = []
    for question in record["questions"]:
        score = scores[question["id"]]
        shown = {**question, "points": score.points, "comment": score.comment}
        # A learner's code runs beside its check and can repeat what it saw there.
        if any(line in question["message"] for line in hidden):
            shown["message"] = "This check does not pass; what it said is not shown."
        questions.append(shown)
    return render(
        "feedback.html.j2",
        submission=submission,
        record=record,
        questions=questions,
        points=sum(q["points"] or 0 for q in questions) - book.lost_late(submission),
        lost_late=book.lost_late(submission),
        most=sum(q["max"] for q in questions),
        waiting=sum(q["points"] is None for q in questions),
    )


def _hidden_lines(source: Path) -> list[str]:
    """Return the lines of the hidden tests in an assignment's source."""
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    return [line for cell in cells for line in hidden_lines("".join(cell["source"]))]
