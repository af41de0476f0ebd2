"""Every lab of the kit: its source scores full, its release nothing, two answers their worth."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit import paths
from labkit.authoring import release
from labkit.evidence import files as evidence
from labkit.evidence import reader
from labkit.grading.batch import grade
from labkit.nbgrader_cells import Role, question_of, role_of

SOURCES = release.find_labs(paths.SOURCES)
RECORDED = paths.EVIDENCE


def write(path: Path, notebook: Any) -> None:
    path.parent.mkdir(parents=True)
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]


def released(source: Path) -> Any:
    return nbformat.reads(release.build(source), as_version=4)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source_release_and_two_answers(source: Path, tmp_path: Path) -> None:
    recording = evidence.of_lab(RECORDED, source.stem)
    learner = reader.read(recording).learner
    solved = release.nbgrader_source(source)
    two = released(source)
    answers = [c for c in solved.cells if role_of(c) is Role.ANSWER]
    chosen = {question_of(cell): cell.source for cell in answers[:2]}
    for cell in two.cells:
        if role_of(cell) is Role.ANSWER:
            cell.source = chosen.get(question_of(cell), cell.source)
    folder = tmp_path / "submitted" / learner
    for name, notebook in (("whole", solved), ("empty", released(source)), ("two", two)):
        write(folder / name / f"{source.stem}.ipynb", notebook)
        shutil.copy(recording, folder / name / recording.name)

    rows = grade(tmp_path, sources=[source], out=tmp_path / "grades.csv")
    by_name = {row["assignment"]: row for row in rows}
    questions = {q["id"]: q for q in by_name["whole"]["questions"]}
    assert [q for q in questions.values() if q["status"] not in ("pass", "by hand")] == []
    assert by_name["empty"]["points"] == 0
    # Nothing stopped on the way: a learner can run all of it before the first answer.
    assert {q["status"] for q in by_name["empty"]["questions"]} <= {"unanswered", "by hand"}
    passed = {q["id"]: q["points"] for q in by_name["two"]["questions"] if q["points"]}
    assert passed == {name: questions[name]["max"] for name in chosen}
    assert all(row["status"] == "graded" for row in rows)


def test_no_release_scores_anything_without_evidence(tmp_path: Path) -> None:
    for source in SOURCES:
        write(tmp_path / "in" / source.stem[:2] / f"{source.stem}.ipynb", released(source))
    rows = grade(tmp_path / "in", sources=SOURCES, out=tmp_path / "grades.csv")
    handed_in = [row for row in rows if row["status"] != "missing"]
    assert [row["lab"] for row in handed_in] == [source.stem for source in SOURCES]
    for row in handed_in:
        assert (row["points"], row["status"]) == (0, "graded"), row
        assert "no evidence was handed in" in row["findings"][0]["sentence"]


def test_a_solution_without_evidence_is_reported_and_gets_nothing_that_was_measured(
    tmp_path: Path,
) -> None:
    source = next(source for source in SOURCES if source.stem.startswith("01"))
    write(tmp_path / "in" / "ada" / f"{source.stem}.ipynb", release.nbgrader_source(source))
    (row,) = grade(tmp_path / "in", sources=[source], out=tmp_path / "grades.csv")
    assert row["status"] == "graded"
    assert "no evidence was handed in" in row["findings"][0]["sentence"]
    # A prediction has its one point for being made; what is measured has more.
    assert {q["status"] for q in row["questions"] if q["max"] > 1} == {"could not run", "by hand"}
