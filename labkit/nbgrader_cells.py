"""What nbgrader's metadata says about a cell: its role, its question, its points.

Works on plain dicts (a notebook's JSON) and on nbformat's `NotebookNode`, which is a dict too. A cell
may come from a learner: one whose metadata cannot be read counts as a given cell.

The metadata follows nbgrader's schema 3 (nbgrader/docs/source/contributor_guide/metadata.rst), with the
kit's rule for `grade_id`: `check-QUESTION` or `answer-QUESTION`.

    role           cell        grade   solution   locked   points
    check          code        true    false      true     yes
    answer         code        false   true       false    no, its check has them
    text answer    Markdown    true    true       false    yes, a person gives them
    given          any         no metadata, or neither grade nor solution
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Cell = Mapping[str, Any]


class Role(StrEnum):
    """What a cell is for."""

    CHECK = "check"
    ANSWER = "answer"
    TEXT_ANSWER = "text answer"
    GIVEN = "given"

    @property
    def is_answer(self) -> bool:
        """Whether the learner writes in it."""
        return self in (Role.ANSWER, Role.TEXT_ANSWER)

    @property
    def is_graded(self) -> bool:
        """Whether nbgrader gives points for the cell itself."""
        return self in (Role.CHECK, Role.TEXT_ANSWER)


def role_of(cell: Cell) -> Role:
    """Return the role of a cell."""
    metadata = _metadata(cell)
    if metadata.get("solution"):
        return Role.TEXT_ANSWER if metadata.get("grade") else Role.ANSWER
    return Role.CHECK if metadata.get("grade") else Role.GIVEN


def grade_id_of(cell: Cell) -> str:
    """Return nbgrader's id of a cell; empty where it has none."""
    grade_id = _metadata(cell).get("grade_id")
    return grade_id if isinstance(grade_id, str) else ""


def question_of(cell: Cell) -> str:
    """Return the question that a cell belongs to; empty for a given cell."""
    return question_in(grade_id_of(cell))


def check_of(cell: Cell) -> str | None:
    """Return the question that a check cell judges; None for any other cell."""
    return question_of(cell) if role_of(cell) is Role.CHECK else None


def points_of(cell: Cell) -> float:
    """Return the points that a cell gives at most; 0 for a cell that is not graded.

    Raises ValueError for a graded cell that does not say how many.
    """
    if not role_of(cell).is_graded:
        return 0.0
    points = _metadata(cell).get("points")
    if not isinstance(points, int | float):
        raise ValueError(f"the cell {grade_id_of(cell)} has no points")
    return float(points)


def grade_id(role: Role, question: str) -> str:
    """Return the id that the cell of a question has in nbgrader."""
    return f"{'check' if role is Role.CHECK else 'answer'}-{question}"


def question_in(grade_id: str) -> str:
    """Return the question in an id of nbgrader, which its gradebook calls the name of a grade."""
    return grade_id.partition("-")[2]


def metadata(role: Role, question: str, *, cell_type: str, points: float = 0.0) -> dict[str, Any]:
    """Return the metadata of a check or an answer, as nbgrader's schema 3 wants it."""
    made: dict[str, Any] = {
        "cell_type": cell_type,
        "grade": role.is_graded,
        "grade_id": grade_id(role, question),
        "locked": role is Role.CHECK,
        "schema_version": 3,
        "solution": role.is_answer,
        "task": False,
    }
    if role.is_graded:
        made["points"] = int(points) if points.is_integer() else points
    return made


def _metadata(cell: Cell) -> Mapping[str, Any]:
    """Return nbgrader's metadata of a cell; empty where there is none that can be read."""
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, Mapping) else None
    return found if isinstance(found, Mapping) else {}
