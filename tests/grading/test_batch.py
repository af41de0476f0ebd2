"""Thirty-four submissions, most of them hostile: right marks, a report, and nothing else changed."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Generator, Sequence

import nbformat
import psutil
import pytest

from labkit.grading import feedback, processes
from labkit.grading.marking import Job
from tests.grading import course
from tests.grading.conftest import Batch, files

LEARNERS = course.LEARNERS


def report_of(batch: Batch, name: str) -> str:
    row = batch.rows[name]
    findings = [f"{f['question']}: {f['sentence']}" for f in row["findings"]]
    return "\n".join([*findings, row["problem"]])


@pytest.mark.parametrize("name", LEARNERS)
def test_marks_are_as_a_person_would_give_them(batch: Batch, name: str) -> None:
    row = batch.rows[name]
    assert (row["points"], row["max"]) == (LEARNERS[name].points, 7.5), row
    assert row["status"] == LEARNERS[name].status


@pytest.mark.parametrize("name", [name for name, learner in LEARNERS.items() if learner.says])
def test_what_is_odd_is_reported(batch: Batch, name: str) -> None:
    for words in LEARNERS[name].says:
        assert words in report_of(batch, name)


def test_what_is_not_odd_is_not_reported(batch: Batch) -> None:
    for name in ("half", "nearly", "empty", "unmarked", "has_200_mb", "others_answers"):
        assert batch.rows[name]["findings"] == []
    # Who copied from whom does not show: both are told of.
    (shared,) = batch.rows["solved"]["findings"]
    assert "its evidence shares with others_evidence" in shared["sentence"]


def test_nothing_else_is_changed_and_nothing_is_left(batch: Batch) -> None:
    made = batch.course, batch.base / "grades.csv"
    now = {p: h for p, h in files(batch.base).items() if not any(p.is_relative_to(m) for m in made)}
    assert now == batch.before
    ours = [p for p in psutil.Process().children(recursive=True) if "bwrap" in p.name()]
    assert ours == []


def test_nothing_of_this_machine_or_of_others_was_seen(batch: Batch) -> None:
    text = (batch.course / "autograded" / "reads" / course.LAB / f"{course.LAB}.ipynb").read_text()
    assert "learner:x:1000" in text  # the list of users that the sandbox has
    assert "root:" not in text
    assert "Because 3 is more than 2" not in text
    socket = batch.course / "autograded" / "socket" / course.LAB / f"{course.LAB}.ipynb"
    assert "no way out" in socket.read_text()


def test_nothing_of_a_learners_runs_in_the_instructors_browser(batch: Batch) -> None:
    ran = batch.course / "autograded" / "scripts" / course.LAB / f"{course.LAB}.ipynb"
    shown = nbformat.read(ran, as_version=4)  # type: ignore[no-untyped-call]
    for cell in shown.cells:
        assert cell.cell_type == "code" or "<" not in cell.source
        for output in cell.get("outputs", ()):
            assert set(output.get("data", {})) <= {"text/plain", "image/png"}


def test_each_question_says_what_was_expected_and_found(batch: Batch) -> None:
    half = {q["id"]: q for q in batch.rows["half"]["questions"]}
    assert half["largest"]["status"] == "pass"
    assert half["total"]["message"] == (
        "The sum: you said 7, measured 6, which is further off than 0.5."
    )
    assert half["port"]["status"] == "unanswered"
    hidden = next(q for q in batch.rows["nearly"]["questions"] if q["id"] == "total")
    assert (hidden["status"], hidden["points"]) == ("fail", 0)
    assert "a further test does not" in hidden["message"]
    why = next(q for q in batch.rows["solved"]["questions"] if q["id"] == "why")
    assert (why["status"], why["points"]) == ("by hand", None)
    assert batch.rows["solved"]["to_mark_by_hand"] == 1
    assert batch.rows["empty"]["to_mark_by_hand"] == 0
    gone = next(q for q in batch.rows["deleted_answer"]["questions"] if q["id"] == "total")
    assert (gone["status"], gone["message"]) == ("unanswered", "The answer cell is missing.")


def test_table_of_marks(batch: Batch) -> None:
    with (batch.base / "grades.csv").open(newline="") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(LEARNERS)
    assert {name: float(row["points"]) for name, row in rows.items()} == {
        name: learner.points for name, learner in LEARNERS.items()
    }
    assert rows["half"]["questions"] == "largest 2/2; total 0/3; port 0/1; why 0/1.5"


def test_the_page_about_the_class(batch: Batch) -> None:
    text = (batch.course / "class.html").read_text()
    for name in LEARNERS:
        assert f'<th scope="row">{name}</th>' in text
    assert "<script" not in text.lower()
    half = text.index("Missed most"), text.index("Who is where")
    assert "<code>port</code>" in text[slice(*half)]
    assert "<code>why</code>" not in text  # a person reads it, no check
    assert not list((batch.course / "feedback").rglob("class.html"))


def test_the_time_is_shown(batch: Batch, record_testsuite_property: object) -> None:
    slowest = max(batch.rows.values(), key=lambda row: row["seconds"])
    print(f"{len(batch.rows)} submissions in {batch.seconds:.0f} s on {os.cpu_count()} processors")
    assert slowest["seconds"] < 90


def test_learners_pages_have_no_secret(batch: Batch) -> None:
    pages = feedback.write(batch.course)
    assert len(pages) == len(LEARNERS)
    texts = {page.parts[-3]: page.read_text() for page in pages}
    for text in texts.values():
        assert "a_secret_of_the_hidden_test" not in text
        assert "Because it is so" not in text
        assert "BEGIN" not in text
        assert "<script" not in text.lower()
    assert "The sum: you said 7, measured 6" in texts["half"]
    assert "The sum of your numbers." in texts["half"]
    assert "2 of 7.5 points" in texts["half"]
    assert "1 answer is still to be read" in texts["solved"]
    assert "Nothing was handed in" in texts["nothing"]


def test_a_page_does_not_repeat_what_a_learners_code_read(batch: Batch) -> None:
    record = batch.course / "marks" / "half" / course.LAB / f"{course.LAB}.json"
    kept = record.read_text()
    changed = json.loads(kept)
    changed["questions"][0]["message"] = 'In[9] is assert total == 6, "a_secret_of_the_hidden_test"'
    record.write_text(json.dumps(changed))
    try:
        feedback.write(batch.course)
    finally:
        record.write_text(kept)
    page = batch.course / "feedback" / "half" / course.LAB / f"{course.LAB}.html"
    assert "a_secret" not in page.read_text()
    assert "what it said is not shown" in page.read_text()


def test_a_batch_goes_on_where_it_was(batch: Batch) -> None:
    marked: list[str] = []

    def noted(jobs: Sequence[Job]) -> Generator[Job]:
        marked.extend(job.submission.student for job in jobs)
        return processes.mark_all(jobs)

    rows = batch.again(mark_all=noted)
    assert marked == []
    assert rows == list(batch.rows.values())
    # One learner hands in again, and one record is lost.
    half = batch.handed_in / "half" / f"{course.LAB}.ipynb"
    kept = half.read_bytes()
    (batch.course / "marks" / "nearly" / course.LAB / f"{course.LAB}.json").unlink()
    solved = batch.handed_in / "solved" / half.name
    try:
        half.write_bytes(solved.read_bytes())
        points = {row["student"]: row["points"] for row in batch.again(mark_all=noted)}
    finally:
        half.write_bytes(kept)
    assert marked == ["half", "nearly"]
    assert (points["half"], points["nearly"], points["empty"]) == (6, 3, 0)
    batch.again()


def test_points_given_by_hand_stay(batch: Batch) -> None:
    from nbgrader.api import Gradebook

    url = f"sqlite:///{batch.course / 'gradebook.db'}"
    with Gradebook(url) as book:
        grade = book.find_grade("answer-why", course.LAB, course.LAB, "solved")
        grade.manual_score, grade.needs_manual_grade = 1.5, False
        book.find_comment("answer-why", course.LAB, course.LAB, "solved").manual_comment = "Well seen."
        book.db.commit()
    rows = {row["student"]: row for row in batch.again()}
    assert (rows["solved"]["points"], rows["solved"]["to_mark_by_hand"]) == (7.5, 0)
    feedback.write(batch.course)
    page = batch.course / "feedback" / "solved" / course.LAB / f"{course.LAB}.html"
    assert "Well seen." in page.read_text()
    assert "7.5 of 7.5 points" in page.read_text()
