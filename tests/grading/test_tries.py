"""Tries, hints and predictions of a submission's evidence are told; what they cost is a choice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from labkit.evidence import cells
from labkit.evidence.files import beside
from labkit.evidence.writer import Writer
from labkit.grading import results
from labkit.grading.batch import Costs, grade
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
