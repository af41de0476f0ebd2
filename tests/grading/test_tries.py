"""Tries, hints and predictions of a submission's evidence are told; what they cost is a choice."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from labkit.evidence import cells
from labkit.evidence.files import beside
from labkit.evidence.writer import Writer
from labkit.grading import feedback, results
from labkit.grading.batch import Costs, grade
from labkit.grading.lateness import TIMESTAMP, Due
from tests.grading import course
from tests.grading.conftest import LIMITS


def test_tries_and_hints_are_told_and_cost_what_the_instructor_says(tmp_path: Path) -> None:
    sources = course.sources(tmp_path)
    notebook = tmp_path / "in" / "ada" / f"{course.LAB}.ipynb"
    notebook.parent.mkdir(parents=True)
    notebook.write_text(json.dumps(course.Course(sources[0]).answered(**course.RIGHT)))
    course.write_evidence(beside(notebook), "ada")
    writer = Writer(beside(notebook), "ada")

    def note(kind: str, **row: object) -> None:
        writer.write(kind, cells.now(), writer.now(), row, docker="26.1")

    note("try", question="largest", name="the largest", answer="1")
    note("try", question="largest", name="the largest", answer="2")
    note("hint", question="largest", step=2)
    for guess in ("2", "4"):  # the last one counts
        prediction = {"name": "the number", "predicted": guess, "measured": "3"}
        note("prediction", question="total", **prediction)

    def row(costs: Costs) -> dict[str, object]:
        out = tmp_path / "grades.csv"
        (found,) = grade(tmp_path / "in", sources=sources, out=out, limits=LIMITS, costs=costs)
        return found

    free = row(Costs())
    questions = {q["id"]: q for q in free["questions"]}  # type: ignore[attr-defined]
    assert (questions["largest"]["tries"], questions["largest"]["hints"]) == (2, 1)
    assert (questions["total"]["tries"], questions["total"]["hints"]) == (0, 0)
    assert free["points"] == 6
    assert free["predictions"] == [
        {"question": "total", "name": "the number", "predicted": "4", "measured": "3"}
    ]
    (summed,) = results.predictions([free, free])
    assert (summed["made"], summed["as_measured"], summed["others"]) == (2, 0, {"4": 2})
    with (tmp_path / "grades.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert "largest 2/2 (2 misses, 1 hint)" in line["questions"]
    page = (tmp_path / "grades" / "class.html").read_text()
    assert "<td>the number</td>" in page
    # Marked once; the gradebook follows what tries and hints are to cost.
    assert row(Costs(per_try=0.25, per_hint=0.5))["points"] == 5
    assert row(Costs(per_try=9))["points"] == 4  # a question has no fewer points than none
    assert row(Costs())["points"] == 6


def test_lateness_costs_what_the_instructor_says_and_is_in_the_gradebook(tmp_path: Path) -> None:
    sources = course.sources(tmp_path)
    folder = tmp_path / "course" / "submitted" / "ada" / course.LAB
    notebook = folder / f"{course.LAB}.ipynb"
    folder.mkdir(parents=True)
    notebook.write_text(json.dumps(course.Course(sources[0]).answered(**course.RIGHT)))
    course.write_evidence(beside(notebook), "ada")
    (folder / TIMESTAMP).write_text("2026-12-03 00:00:01.000000 UTC")
    due = {course.LAB: datetime(2026, 12, 1, 23, 59, tzinfo=UTC)}

    def row(costs: Costs) -> dict[str, object]:
        out = tmp_path / "grades.csv"
        (found,) = grade(tmp_path / "course", sources=sources, out=out, limits=LIMITS, costs=costs)
        return found

    told = row(Costs(due=Due(due)))  # told, and for nothing
    assert (told["points"], told["days_late"], told["lost_late"]) == (6, 2, 0)
    assert told["handed_in"] == "2026-12-03T00:00:01+00:00"
    late = row(Costs(due=Due(due, 10)))
    assert (late["points"], late["lost_late"]) == (pytest.approx(4.8), pytest.approx(1.2))
    with (tmp_path / "grades.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["points"], line["days_late"]) == ("4.8", "2")
    (page,) = feedback.write(tmp_path / "course")
    assert "4.8 of " in page.read_text()
    assert "handed in late, which took 1.2 points off" in page.read_text()
    with Gradebook(f"sqlite:///{tmp_path / 'course' / 'gradebook.db'}") as book:
        kept = book.find_submission(course.LAB, "ada")
        assert kept.total_seconds_late == pytest.approx(24 * 3600 + 61)
        assert kept.late_submission_penalty == pytest.approx(1.2)
    assert row(Costs())["points"] == 6  # marked once more without the rule
