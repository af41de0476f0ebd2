"""Write what each learner gets back: a page per lab, question by question, on the learner's own data.

A page tells what was asked, what the learner answered, and what the check found. It has nothing of a
hidden test and no solution; what the learner's own code printed is not on it, for it may have read
both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from labkit.authoring import report
from labkit.authoring.release import hidden_lines
from labkit.errors import UsageError
from labkit.grading.gradebook import Book
from labkit.grading.submissions import Submission


def write(course: Path, database: str = "") -> list[Path]:
    """Write feedback/STUDENT/ASSIGNMENT/LAB.html for what was marked in a course folder.

    The points are the gradebook's, with what people gave by hand, and their comments. Raises UsageError
    where nothing was marked.
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
        page.parent.mkdir(parents=True, exist_ok=True)
        source = course / "source" / assignment / f"{path.stem}.ipynb"
        text = _page(json.loads(path.read_text()), submission, book, _secrets(source))
        report.replace(page, text)
        written.append(page)
    return written


def _page(record: dict[str, Any], submission: Submission, book: Book, secrets: Iterable[str]) -> str:
    scores = book.scores(submission)
    questions = []
    for question in record["questions"]:
        score = scores[question["id"]]
        shown = {**question, "points": score.points, "comment": score.comment}
        # A learner's code runs beside its check and can repeat what it saw there.
        if any(secret in question["message"] for secret in secrets):
            shown["message"] = "This check does not pass; what it said is not shown."
        questions.append(shown)
    return report.render(
        "feedback.html.j2",
        submission=submission,
        record=record,
        questions=questions,
        points=sum(q["points"] or 0 for q in questions),
        most=sum(q["max"] for q in questions),
        waiting=sum(q["points"] is None for q in questions),
    )


def _secrets(source: Path) -> list[str]:
    """Return the lines of the hidden tests."""
    cells = json.loads(source.read_text())["cells"]
    return [line for cell in cells for line in hidden_lines("".join(cell["source"]))]
