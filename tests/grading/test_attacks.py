"""Each attack gets the marks that a person would give, and shows nobody what is expected."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest

from labkit.grading.batch import grade
from labkit.nbgrader_cells import Role, role_of
from tests.grading import course
from tests.grading.attacks import ATTACKS
from tests.grading.conftest import LIMITS


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    base = tmp_path_factory.mktemp("attacks")
    sources = course.sources(base)
    made = course.Course(sources[0])
    for name, attack in ATTACKS.items():
        folder = base / "in" / name
        folder.mkdir(parents=True)
        notebook = attack.make(made)
        text = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
        (folder / f"{course.LAB}.ipynb").write_bytes(text)
    rows = grade(base / "in", sources=sources, out=base / "grades.csv", limits=LIMITS)
    return base, {row["student"]: row for row in rows}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gets_the_right_marks(
    marked: tuple[Path, dict[str, dict[str, Any]]], name: str
) -> None:
    row, attack = marked[1][name], ATTACKS[name]
    sentences = [f["sentence"] for f in row["findings"]] + [q["message"] for q in row["questions"]]
    report = "\n".join([*sentences, row["problem"]])
    assert (row["points"], row["status"]) == (attack.points, attack.status), row
    assert [words for words in attack.says if words not in report] == [], report


def test_nothing_that_is_expected_was_seen(
    marked: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    for path in (marked[0] / "grades" / "autograded").rglob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        shown = [c.outputs for c in notebook.cells if c.cell_type == "code"]
        assert "a_secret_of" not in json.dumps(shown), path
        learners = [c for c in notebook.cells if role_of(c) is not Role.CHECK]
        assert "/01_count_things.md" not in json.dumps([c.get("outputs") for c in learners]), path


def test_the_files_of_a_submission_stay_small(
    marked: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    for path in (marked[0] / "grades").rglob("*"):
        assert not path.is_file() or path.stat().st_size < 20_000_000, path


def test_nothing_is_left_running(marked: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    assert marked
    deadline = time.monotonic() + 10
    left = [True]
    while left and time.monotonic() < deadline:
        left = [p for p in psutil.process_iter(["name"]) if p.info["name"] == "bwrap"]
        time.sleep(0.1)
    assert not left
