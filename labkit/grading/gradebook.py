"""nbgrader's gradebook: the assignments, and the points of the submissions."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.authoring.release import TEXT_STUB
from labkit.errors import UsageError
from labkit.grading.submissions import Submission

if TYPE_CHECKING:
    from nbformat import NotebookNode

_CONFIG = """\
# Written by labkit; yours to change. The formgrader and nbgrader's commands run in this folder.
c = get_config()
c.CourseDirectory.db_url = {database!r}
c.ClearSolutions.text_stub = {stub!r}
"""


@dataclass(frozen=True)
class Score:
    """A question's points, which a person may have given; None where that is still to be done."""

    points: float | None
    by_hand: bool
    comment: str = ""


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


class Book:
    """The gradebook of a course: SQLite in its folder, or the database of a SQLAlchemy URL."""

    def __init__(self, course: Path, database: str = "") -> None:
        from nbgrader.api import Gradebook
        from sqlalchemy.exc import SQLAlchemyError

        self._url = database or f"sqlite:///{course / 'gradebook.db'}"
        # nbgrader calls its own helper `alembic` by name, and the environment may not be activated.
        path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
        try:
            with _variable("PATH", path):
                self._book = Gradebook(self._url)
        except (SQLAlchemyError, ImportError) as problem:
            told = str(problem).splitlines()[0]
            raise UsageError(
                f"the gradebook {self._url.partition('@')[2] or self._url} cannot be opened: {told}",
                hint="--db takes a SQLAlchemy URL, sqlite:////home/ada/gradebook.db say",
            ) from problem
        config = course / "nbgrader_config.py"
        if not config.exists():
            config.write_text(_CONFIG.format(database=self._url, stub=TEXT_STUB))

    def prepare(self, assignment: str, lab: str, gradable: NotebookNode) -> None:
        """Enter a lab's questions, as nbgrader's `generate_assignment` does."""
        from copy import deepcopy

        from nbgrader.preprocessors import SaveCells

        self._book.update_or_create_assignment(assignment)
        names = {"notebook": lab, "assignment": assignment, "db_url": self._url}
        try:
            SaveCells().preprocess(deepcopy(gradable), {"nbgrader": names})
        except RuntimeError as problem:
            raise UsageError(
                f"the gradebook has submissions of {lab} with other questions than its source has now",
                hint="take another course folder: --course",
            ) from problem
        self._book.db.expire_all()

    def has(self, submission: Submission) -> bool:
        """Whether a submission's points are there."""
        from nbgrader.api import MissingEntry

        try:
            found = self._notebook(submission)
        except MissingEntry:
            return False
        return any(g.auto_score is not None or g.manual_score is not None for g in found.grades)

    def enter(self, submission: Submission, questions: Iterable[Mapping[str, Any]]) -> None:
        """Enter the points of a submission, by the rules of nbgrader's `autograde`."""
        book = self._book
        book.update_or_create_student(submission.student)
        with warnings.catch_warnings():
            # nbgrader looks at what it has not entered yet, and SQLAlchemy says so each time.
            warnings.filterwarnings("ignore", message="Object of type .* not in session")
            book.update_or_create_submission(submission.assignment, submission.student)
        grades = {grade.name.partition("-")[2]: grade for grade in self._notebook(submission).grades}
        for question in questions:
            grade = grades[question["id"]]
            grade.auto_score = question["points"]
            # What a person has marked is looked at again when the submission has changed.
            grade.needs_manual_grade = grade.manual_score is not None or question["points"] is None
        for comment in self._notebook(submission).comments:
            empty = next(
                (q["status"] == "unanswered" for q in questions if comment.name == f"answer-{q['id']}"),
                False,
            )
            comment.auto_comment = "No response." if empty else None
        book.db.commit()

    def scores(self, submission: Submission) -> dict[str, Score]:
        """Return the points of each question."""
        found = self._notebook(submission)
        comments = {c.name.partition("-")[2]: c.comment or "" for c in found.comments}
        scores = {}
        for grade in found.grades:
            name = grade.name.partition("-")[2]
            given = grade.manual_score is not None or grade.auto_score is not None
            points = float(grade.score) if given else None
            scores[name] = Score(points, bool(grade.needs_manual_grade), comments.get(name, ""))
        return scores

    def _notebook(self, submission: Submission) -> Any:
        s = submission
        return self._book.find_submission_notebook(s.lab, s.assignment, s.student)
