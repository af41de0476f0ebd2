"""nbgrader's own commands, called by themselves on the kit's source, agree with `labkit grade`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from labkit import paths
from labkit.authoring import release
from labkit.grading.batch import grade
from tests.grading import course
from tests.grading.conftest import LIMITS

# What nbgrader can mark: learners who neither attack it nor break their notebook.
LEARNERS = ("solved", "half", "nearly", "empty", "edited_check", "print_check")


class Nbgrader:
    """nbgrader's commands, in a course folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str) -> str:
        """Run a command that does not fail; returns all that it said."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=self.folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(paths.REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def exported(self) -> dict[str, float]:
        """The points of `nbgrader export`, by learner."""
        self("export")
        with (self.folder / "grades.csv").open(newline="") as file:
            return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = course.sources(tmp_path_factory.mktemp("source"))
    return path


@pytest.fixture(scope="module")
def theirs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nbgrader]:
    """A course folder as an instructor has it who knows nbgrader alone."""
    folder = tmp_path_factory.mktemp("course")
    (folder / "nbgrader_config.py").write_text(
        f"c = get_config()\nc.ClearSolutions.text_stub = {release.TEXT_STUB!r}\n"
    )
    made = folder / "source" / "count" / f"{course.LAB}.ipynb"
    made.parent.mkdir(parents=True)
    nbformat.write(release.nbgrader_source(source), made)  # type: ignore[no-untyped-call]
    there = course.Course(source)
    for name in LEARNERS:
        path = folder / "submitted" / name / "count" / made.name
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(course.LEARNERS[name].make(there)))
    return Nbgrader(folder)


def test_source_validates_and_the_release_does_not(theirs: Nbgrader, source: Path) -> None:
    said = theirs("validate", f"source/count/{course.LAB}.ipynb")
    assert "Success! Your notebook passes all the tests." in said
    (theirs.folder / "release.ipynb").write_text(release.build(source))
    assert "VALIDATION FAILED" in theirs("validate", "release.ipynb")


def test_the_same_marks(theirs: Nbgrader, source: Path) -> None:
    theirs("generate_assignment", "count")
    theirs("autograde", "count")
    by_nbgrader = theirs.exported()
    by_hand = {name: course.LEARNERS[name].points for name in LEARNERS}
    assert by_nbgrader == by_hand

    # The same course folder, graded again by labkit: the same gradebook.
    rows = grade(theirs.folder, sources=[source], out=theirs.folder / "ours.csv", limits=LIMITS)
    assert {row["student"]: row["points"] for row in rows} == by_hand
    assert {row["assignment"] for row in rows} == {"count"}
    assert theirs.exported() == by_hand


def test_a_gradebook_that_labkit_made_is_nbgraders(
    theirs: Nbgrader, source: Path, tmp_path: Path
) -> None:
    database = f"sqlite:///{tmp_path / 'marks.db'}"
    grade(
        theirs.folder / "submitted",
        sources=[source],
        out=tmp_path / "grades.csv",
        course=tmp_path / "course",
        database=database,
        limits=LIMITS,
    )
    ours = Nbgrader(tmp_path / "course")
    assert ours.exported() == {name: course.LEARNERS[name].points for name in LEARNERS}
    assert (tmp_path / "marks.db").is_file()
    assert not (tmp_path / "course" / "gradebook.db").exists()
    # nbgrader builds the same questions from what labkit put there.
    ours("generate_assignment", "count", "--force")
