"""Submissions: found in both layouts, and read safely."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from labkit.errors import UsageError
from labkit.grading import submissions
from tests.grading import course


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"\x00\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no list of cells"),
        (b'{"cells": 3}', "no list of cells"),
        (b'{"worksheets": [{"cells": []}], "nbformat": 3}', "no list of cells"),
        (b'{"cells": [3, {"cell_type": "code"}, {"cell_type": "x", "source": ""}]}', "without a cell"),
    ],
)
def test_what_is_no_notebook_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(submissions.UnreadableError, match=problem):
        submissions.read(path)


def test_strange_parts_of_a_cell_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "x.ipynb"
    strange = {
        "cell_type": "code",
        "id": ["x"],
        "source": ["a = 1\n", "b = 2"],
        "metadata": {"nbgrader": "yes", "tags": 3},
        "outputs": [3, {"data": {"text/plain": ["seen"]}}, {"data": {"text/plain": "y" * 200_000}}],
    }
    path.write_text(json.dumps({"cells": [strange]}))
    (cell,) = submissions.read(path)
    assert (cell.source, cell.metadata) == ("a = 1\nb = 2", {})
    assert [o.data["text/plain"] for o in cell.outputs] == ["seen"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.ipynb"
    secret.write_text('{"cells": [{"cell_type": "code", "source": "1", "metadata": {}}]}')
    batch = tmp_path / "in"
    (batch / "ada").mkdir(parents=True)
    (batch / "ada" / f"{course.LAB}.ipynb").symlink_to(secret)
    (batch / "ada" / f"{course.LAB}.evidence.jsonl").symlink_to(secret)
    (batch / "grace").symlink_to(tmp_path)
    (found,), notes = submissions.find(batch, [course.LAB])
    with pytest.raises(submissions.UnreadableError, match="a link"):
        submissions.read(found.path)
    assert found.evidence is None
    assert notes == [f"{batch / 'grace'} is a link; nothing in it was graded"]


def test_both_layouts_are_found(tmp_path: Path) -> None:
    plain, theirs = tmp_path / "plain", tmp_path / "theirs"
    for name in ("ada/01_count_things", "ada/notes", "grace/01_count_things", "linus/.hidden"):
        path = plain / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (plain / "grades").mkdir()
    found, notes = submissions.find(plain, [course.LAB, "02_x"], leave_out=[plain / "grades"])
    assert [(s.student, s.assignment, s.path.is_file()) for s in found] == [
        ("ada", course.LAB, True),
        ("grace", course.LAB, True),
        ("linus", course.LAB, False),
    ]
    assert notes == [f"{plain / 'ada' / 'notes.ipynb'}: no lab is called notes"]

    path = theirs / "submitted" / "ada" / "week1" / f"{course.LAB}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert submissions.find(theirs, [course.LAB])[0] == [
        submissions.Submission("ada", "week1", course.LAB, path)
    ]
    with pytest.raises(UsageError, match="holds no submission"):
        submissions.find(plain, ["07_other"])
    with pytest.raises(UsageError, match="cannot be read"):
        submissions.find(tmp_path / "nowhere", [course.LAB])
