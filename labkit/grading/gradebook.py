"""nbgrader's gradebook: the assignments, and the points of the submissions."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

from labkit import files, nbgrader_cells
from labkit.authoring.release import TEXT_STUB
from labkit.errors import UsageError
from labkit.grading.submissions import Submission
from labkit.nbgrader_cells import Role
from labkit.outcomes import Outcome

if TYPE_CHECKING:
    from nbformat import NotebookNode

CONFIG = "nbgrader_config.py"
"""The file of a course folder that nbgrader reads."""

_CONFIG = """\
# Written by labkit; yours to change. The formgrader and nbgrader's commands run in this folder.
c = get_config()
c.CourseDirectory.db_url = {database!r}
c.ClearSolutions.text_stub = {stub!r}
"""


@dataclass(frozen=True)
class Score:
    """The points and the comment of a question."""

    points: float | None
    """None where a person still has to give them."""
    by_hand: bool
    """Whether a person should look at the answer."""
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


@contextlib.contextmanager
def _temporary_files() -> Iterator[None]:
    """Have the temporary files of a library lie where they are found if this process is killed."""
    before = tempfile.tempdir
    with files.scratch() as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = before


def _without_secrets(url: str, reason: str) -> tuple[str, str]:
    """Return a database's address and the reason of an error, both without what the URL keeps secret.

    The user's name stays; a password and every option of the URL go. Of a URL that cannot be read
    nothing stays but its scheme.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    parsed = None
    with contextlib.suppress(SQLAlchemyError, ValueError):
        parsed = make_url(url)
    # A second @ is of a password that was not written as a URL wants it.
    if parsed is None or "@" in (parsed.host or ""):
        scheme, mark, _ = url.partition("://")
        return f"{scheme}{mark}…" if mark else "named by --db", "this is no URL of a database"
    options = [value for _, values in parsed.normalized_query.items() for value in values]
    for secret in sorted(filter(None, [url, parsed.password, *options]), key=len, reverse=True):
        reason = reason.replace(secret, "***").replace(quote_plus(secret), "***")
    return parsed.set(query={}).render_as_string(hide_password=True), reason


def default_url(course: Path) -> str:
    """Return the URL of the gradebook in a course folder."""
    return f"sqlite:///{course / 'gradebook.db'}"


def config_text(database: str) -> str:
    """Return what nbgrader has to know of a course folder whose gradebook has a URL."""
    return _CONFIG.format(database=database, stub=TEXT_STUB)


class Book:
    """The gradebook of a course: SQLite in its folder, or the database of a SQLAlchemy URL.

    Raises UsageError where it cannot be opened.
    """

    def __init__(self, course: Path, database: str = "") -> None:
        from nbgrader.api import Gradebook
        from sqlalchemy.exc import SQLAlchemyError

        self._url = database or default_url(course)
        # nbgrader calls its own helper `alembic` by name, and the environment may not be activated.
        path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}{Path(sys.executable).parent}"
        try:
            with _variable("PATH", path), _temporary_files():
                self._book = Gradebook(self._url)
        except (SQLAlchemyError, ImportError, ValueError) as problem:
            name, reason = _without_secrets(self._url, str(problem).partition("\n")[0])
            # Not `from problem`: its text has the whole URL.
            raise UsageError(
                f"the gradebook {name} cannot be opened: {type(problem).__name__}: {reason}",
                hint="--db takes a SQLAlchemy URL, sqlite:////home/ada/gradebook.db say",
            ) from None
        config = course / CONFIG
        if not config.exists():
            # The URL may hold a password.
            files.write_text(config, config_text(self._url), mode=0o600)

    def prepare(self, assignment: str, lab: str, gradable: NotebookNode) -> None:
        """Enter a lab's questions, as nbgrader's `generate_assignment` does.

        Raises UsageError where the gradebook has submissions of the lab with other questions.
        """
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

    def enter(
        self,
        submission: Submission,
        questions: Sequence[Mapping[str, Any]],
        changed: Collection[str],
    ) -> None:
        """Enter the points of a submission, by the rules of nbgrader's `autograde`.

        ``questions`` are those of its record, with at least id, points and status; who gave points by
        hand for one that is in ``changed`` is asked to look at it again.
        """
        from nbgrader.api import MissingEntry

        try:
            found = self._notebook(submission)
        except MissingEntry:
            self._make_room(submission)
            found = self._notebook(submission)
        grades = {nbgrader_cells.question_in(grade.name): grade for grade in found.grades}
        for question in questions:
            grade = grades[question["id"]]
            grade.auto_score = question["points"]
            if grade.manual_score is None:
                grade.needs_manual_grade = question["points"] is None
            elif question["id"] in changed:
                grade.needs_manual_grade = True
        unanswered = {
            nbgrader_cells.grade_id(Role.TEXT_ANSWER, question["id"])
            for question in questions
            if question["status"] == Outcome.UNANSWERED
        }
        for comment in found.comments:
            comment.auto_comment = "No response." if comment.name in unanswered else None
        self._book.db.commit()

    def _make_room(self, submission: Submission) -> None:
        """See that a submission's notebook has a grade and a comment for each cell that takes one."""
        from nbgrader.api import Comment, Grade, SubmittedNotebook

        s, book = submission, self._book
        book.update_or_create_student(s.student)
        with warnings.catch_warnings():
            # nbgrader looks at what it has not entered yet, and SQLAlchemy warns of it each time.
            warnings.filterwarnings("ignore", message="Object of type .* not in session")
            whole = book.update_or_create_submission(s.assignment, s.student)
            # It makes the notebooks that the assignment has, once: a lab may have been added since.
            if s.lab not in {notebook.name for notebook in whole.notebooks}:
                lab = book.find_notebook(s.lab, s.assignment)
                made = SubmittedNotebook(notebook=lab, assignment=whole)
                made.grades = [Grade(cell_id=cell.id) for cell in lab.grade_cells]
                made.comments = [Comment(cell_id=cell.id) for cell in lab.solution_cells]
                book.db.add(made)
                book.db.commit()

    def enter_lateness(
        self, submission: Submission, handed_in: datetime | None, due: datetime | None, lost: float
    ) -> None:
        """Enter when a submission came and was due, and the points that it loses for that."""
        found = self._notebook(submission)
        found.late_submission_penalty = lost
        found.assignment.timestamp = _naive(handed_in)
        found.assignment.assignment.duedate = _naive(due)
        self._book.db.commit()

    def lost_late(self, submission: Submission) -> float:
        """Return the points that a submission loses for being late."""
        return float(self._notebook(submission).late_submission_penalty or 0.0)

    def scores(self, submission: Submission) -> dict[str, Score]:
        """Return the score of each question of a submission."""
        found = self._notebook(submission)
        comments = {nbgrader_cells.question_in(c.name): c.comment or "" for c in found.comments}
        scores = {}
        for grade in found.grades:
            name = nbgrader_cells.question_in(grade.name)
            has_points = grade.manual_score is not None or grade.auto_score is not None
            points = float(grade.score) if has_points else None
            scores[name] = Score(points, bool(grade.needs_manual_grade), comments.get(name, ""))
        return scores

    def _notebook(self, submission: Submission) -> Any:
        s = submission
        return self._book.find_submission_notebook(s.lab, s.assignment, s.student)


def _naive(when: datetime | None) -> datetime | None:
    """Return a time in UTC as nbgrader keeps it, without a time zone."""
    return when and when.astimezone(UTC).replace(tzinfo=None)
