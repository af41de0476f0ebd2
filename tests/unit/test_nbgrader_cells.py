"""nbgrader's metadata of a cell: written and read in one place, and never trusted."""

from __future__ import annotations

from typing import Any

import pytest
from nbgrader.nbgraderformat import MetadataValidator

from labkit import nbgrader_cells
from labkit.nbgrader_cells import Role


def cell(metadata: Any, cell_type: str = "code") -> dict[str, Any]:
    return {"cell_type": cell_type, "source": "", "metadata": {"nbgrader": metadata}}


@pytest.mark.parametrize(
    ("role", "cell_type", "points", "grade_id"),
    [
        (Role.CHECK, "code", 2.0, "check-cause"),
        (Role.ANSWER, "code", 0.0, "answer-cause"),
        (Role.TEXT_ANSWER, "markdown", 1.5, "answer-cause"),
    ],
)
def test_what_is_written_is_read_and_valid_for_nbgrader(
    role: Role, cell_type: str, points: float, grade_id: str
) -> None:
    made = cell(nbgrader_cells.metadata(role, "cause", cell_type=cell_type, points=points), cell_type)
    assert nbgrader_cells.role_of(made) is role
    assert nbgrader_cells.grade_id_of(made) == grade_id == nbgrader_cells.grade_id(role, "cause")
    assert nbgrader_cells.question_of(made) == nbgrader_cells.question_in(grade_id) == "cause"
    assert nbgrader_cells.check_of(made) == ("cause" if role is Role.CHECK else None)
    assert nbgrader_cells.points_of(made) == points
    MetadataValidator().validate_cell(_node(made))


def _node(made: dict[str, Any]) -> Any:
    import nbformat

    return nbformat.from_dict(made)


@pytest.mark.parametrize(
    "metadata", [None, "yes", [], {}, {"grade_id": 3}, {"grade": False, "grade_id": ["check-a"]}]
)
def test_metadata_that_cannot_be_read_makes_a_given_cell(metadata: Any) -> None:
    for made in (cell(metadata), {"cell_type": "code", "metadata": metadata}, {"cell_type": "code"}):
        assert nbgrader_cells.role_of(made) is Role.GIVEN
        assert nbgrader_cells.grade_id_of(made) == ""
        assert nbgrader_cells.check_of(made) is None
        assert nbgrader_cells.points_of(made) == 0


def test_a_graded_cell_without_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="check-a has no points"):
        nbgrader_cells.points_of(cell({"grade": True, "grade_id": "check-a"}))
