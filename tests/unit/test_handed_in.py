"""What was handed in: found in both layouts, read with care, and put together with the checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.authoring import release
from labkit.errors import UsageError
from labkit.grading import submissions as handed_in
from tests.grading import course

RIGHT = course.RIGHT


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return course.sources(tmp_path_factory.mktemp("source"))[0]


@pytest.fixture(scope="module")
def made(source: Path) -> course.Course:
    return course.Course(source)


def restored(source: Path, notebook: course.Notebook, tmp_path: Path) -> handed_in.Restored:
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(notebook))
    released: Any = nbformat.reads(release.build(source), as_version=4)  # type: ignore[no-untyped-call]
    return handed_in.restore(release.gradable(source), released, handed_in.read(path))


def order(whole: handed_in.Restored) -> list[str]:
    return [handed_in.grade_id(c) for c in whole.notebook.cells if handed_in.grade_id(c)]


def told(whole: handed_in.Restored) -> list[str]:
    return [f"{finding.question}: {finding.sentence}" for finding in whole.findings]


def test_an_untouched_release_becomes_what_is_graded(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    whole = restored(source, made.released, tmp_path)
    gradable = release.gradable(source)
    assert [c.source for c in whole.notebook.cells] == [c.source for c in gradable.cells]
    assert [c.metadata.get("nbgrader") for c in whole.notebook.cells] == [
        c.metadata.get("nbgrader") for c in gradable.cells
    ]
    assert told(whole) == []


def test_deleted_cells_come_back_in_their_place(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    everything = order(restored(source, made.released, tmp_path))
    notebook = made.answered(**RIGHT)
    marked = [c for c in notebook["cells"] if "nbgrader" in c["metadata"]]
    for gone in ("check-largest", "check-total", "check-port", "answer-why"):
        marked.remove(course.find(notebook, gone))
    notebook["cells"] = [c for c in notebook["cells"] if "nbgrader" not in c["metadata"]] + marked
    whole = restored(source, notebook, tmp_path)
    assert order(whole) == everything
    assert whole.missing == {"why"}

    notebook["cells"] = []
    notebook["cells"].append(course.own("1"))
    whole = restored(source, notebook, tmp_path)
    assert order(whole) == [n for n in everything if n.startswith("check-") or n == "answer-why"]
    assert whole.missing == {"largest", "total", "port", "why"}


def test_points_and_texts_of_a_check_are_the_sources(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    notebook = made.answered(**RIGHT)
    check = course.find(notebook, "check-total")
    check["metadata"]["nbgrader"] |= {"points": 1000, "solution": True, "locked": False}
    check["source"] = "pass"
    whole = restored(source, notebook, tmp_path)
    (cell,) = [c for c in whole.notebook.cells if handed_in.grade_id(c) == "check-total"]
    assert cell.metadata.nbgrader.points == 3
    assert "a_secret_of_the_hidden_test" in cell.source
    assert told(whole) == [
        "total: the check cell check-total was edited; it was put back as it was handed out"
    ]


def test_names_that_are_not_the_learners_to_set(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    for code, names in (
        ("checks = None", "checks"),
        ("import labkit.checks\nfrom labkit import checks", "checks"),
        ("checks.equals = print", "checks"),
        ("setattr(checks, 'close', print)", "checks"),
        ("you, numbers = 1, [2]", "numbers, you"),
        ("numbers[0] = 7", "numbers"),
    ):
        whole = restored(source, made.with_code(code), tmp_path)
        sentence = (
            f"a cell of the learner's own sets {names}, which a check reads and a given cell sets"
        )
        assert told(whole) == [f"None: {sentence}"], code
    for code in (
        "mine = checks.equals",
        "print(numbers)",
        "%time x = 1",
        "x = (",
        "for a in numbers: pass",
    ):
        assert told(restored(source, made.with_code(code), tmp_path)) == [], code


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
def test_what_is_no_notebook_is_told(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(handed_in.Unreadable, match=problem):
        handed_in.read(path)


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
    (cell,) = handed_in.read(path)
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
    (found,), notes = handed_in.find(batch, [course.LAB])
    with pytest.raises(handed_in.Unreadable, match="a link"):
        handed_in.read(found.path)
    assert found.evidence is None
    assert notes == [f"{batch / 'grace'} is a link; nothing in it was graded"]


def test_both_layouts_are_found(tmp_path: Path) -> None:
    plain, theirs = tmp_path / "plain", tmp_path / "theirs"
    for name in ("ada/01_count_things", "ada/notes", "grace/01_count_things", "linus/.hidden"):
        path = plain / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (plain / "grades").mkdir()
    found, notes = handed_in.find(plain, [course.LAB, "02_x"], leave=[plain / "grades"])
    assert [(s.student, s.assignment, s.path.is_file()) for s in found] == [
        ("ada", course.LAB, True),
        ("grace", course.LAB, True),
        ("linus", course.LAB, False),
    ]
    assert notes == [f"{plain / 'ada' / 'notes.ipynb'}: no lab is called notes"]

    path = theirs / "submitted" / "ada" / "week1" / f"{course.LAB}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    assert handed_in.find(theirs, [course.LAB])[0] == [
        handed_in.Submission("ada", "week1", course.LAB, path)
    ]
    with pytest.raises(UsageError, match="holds no submission"):
        handed_in.find(plain, ["07_other"])
    with pytest.raises(UsageError, match="cannot be read"):
        handed_in.find(tmp_path / "nowhere", [course.LAB])
