"""A learner's answers and the source's checks, merged: whatever was done to the cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.authoring import release
from labkit.grading import submissions
from labkit.grading.merge import Merged, merge
from labkit.nbgrader_cells import grade_id_of
from tests.grading import course

RIGHT = course.RIGHT


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return course.sources(tmp_path_factory.mktemp("source"))[0]


@pytest.fixture(scope="module")
def made(source: Path) -> course.Course:
    return course.Course(source)


def merged(source: Path, notebook: course.Notebook, tmp_path: Path) -> Merged:
    path = tmp_path / "x.ipynb"
    path.write_text(json.dumps(notebook))
    released: Any = nbformat.reads(release.build(source), as_version=4)  # type: ignore[no-untyped-call]
    return merge(release.gradable(source), released, submissions.read(path))


def order(whole: Merged) -> list[str]:
    return [grade_id_of(c) for c in whole.notebook.cells if grade_id_of(c)]


def findings(whole: Merged) -> list[str]:
    return [f"{finding.question}: {finding.sentence}" for finding in whole.findings]


def test_an_untouched_release_becomes_what_is_graded(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    whole = merged(source, made.released, tmp_path)
    gradable = release.gradable(source)
    assert [c.source for c in whole.notebook.cells] == [c.source for c in gradable.cells]
    assert [c.metadata.get("nbgrader") for c in whole.notebook.cells] == [
        c.metadata.get("nbgrader") for c in gradable.cells
    ]
    assert findings(whole) == []


def test_deleted_cells_come_back_in_their_place(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    everything = order(merged(source, made.released, tmp_path))
    notebook = made.answered(**RIGHT)
    marked = [c for c in notebook["cells"] if "nbgrader" in c["metadata"]]
    for gone in ("check-largest", "check-total", "check-port", "answer-why"):
        marked.remove(course.find(notebook, gone))
    notebook["cells"] = [c for c in notebook["cells"] if "nbgrader" not in c["metadata"]] + marked
    whole = merged(source, notebook, tmp_path)
    assert order(whole) == everything
    assert whole.without_answer == {"why"}

    notebook["cells"] = []
    notebook["cells"].append(course.own("1"))
    whole = merged(source, notebook, tmp_path)
    assert order(whole) == [n for n in everything if n.startswith("check-") or n == "answer-why"]
    assert whole.without_answer == {"largest", "total", "port", "why"}


def test_points_and_texts_of_a_check_are_the_sources(
    source: Path, made: course.Course, tmp_path: Path
) -> None:
    notebook = made.answered(**RIGHT)
    check = course.find(notebook, "check-total")
    check["metadata"]["nbgrader"] |= {"points": 1000, "solution": True, "locked": False}
    check["source"] = "pass"
    whole = merged(source, notebook, tmp_path)
    (cell,) = [c for c in whole.notebook.cells if grade_id_of(c) == "check-total"]
    assert cell.metadata.nbgrader.points == 3
    assert "a_secret_of_the_hidden_test" in cell.source
    assert findings(whole) == [
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
        whole = merged(source, made.with_code(code), tmp_path)
        sentence = (
            f"a cell of the learner's own sets {names}, which a check reads and a given cell sets"
        )
        assert findings(whole) == [f"None: {sentence}"], code
    for code in (
        "mine = checks.equals",
        "print(numbers)",
        "%time x = 1",
        "x = (",
        "for a in numbers: pass",
    ):
        assert findings(merged(source, made.with_code(code), tmp_path)) == [], code
