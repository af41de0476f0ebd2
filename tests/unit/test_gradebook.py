"""The gradebook tells no password, takes labs that are added, and asks again for what has changed."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbgrader.api import Gradebook

from labkit.errors import UsageError
from labkit.grading import submissions
from labkit.grading.batch import Costs, grade
from labkit.grading.gradebook import Book
from labkit.grading.judge import Verdict
from labkit.grading.marking import Job
from labkit.grading.merge import merge
from labkit.grading.record import Record
from labkit.nbgrader_cells import question_of
from labkit.outcomes import Outcome
from tests.grading import course


@pytest.mark.filterwarnings("ignore:Query string argument")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:s3cr3t@127.0.0.1:9/grades",
        "postgresql://ada:p@s3cr3t@127.0.0.1/grades",
        "postgresql://ada:x/s3cr3t@127.0.0.1/grades",
        "postgresql://127.0.0.1:s3cr3t/grades",
        "mysql+pymysql://127.0.0.1/grades?password=s3cr3t",
        "nosuch://ada:s3cr3t@host/grades",
        "s3cr3t",
        "sqlite:////no/such/folder/grades.db?key=s3cr3t",
    ],
)
def test_no_password_is_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match=r"the gradebook .* cannot be opened: ") as refused:
        Book(tmp_path, url)
    assert "s3cr3t" not in "".join(traceback.format_exception(refused.value))
    assert "--db takes a SQLAlchemy URL" in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_courses_settings_are_its_owners_alone(tmp_path: Path) -> None:
    Book(tmp_path)
    assert (tmp_path / "nbgrader_config.py").stat().st_mode & 0o077 == 0


# --- a course -------------------------------------------------------------------------------------

OTHER = "02_count_more"


def mark_all(jobs: Sequence[Job]) -> Iterator[Job]:
    """Let every check pass, and run nothing: what the gradebook makes of it is looked at."""
    for job in jobs:
        gradable, released = (nbformat.reads(t, as_version=4) for t in (job.gradable, job.released))
        record = Record(merge(gradable, released, submissions.read(job.submission.path)).notebook)
        record.counts = {"largest": (1, 0)}
        record.verdicts = {question_of(cell): Verdict(Outcome.PASS, "") for cell in record.checks()}
        record.save(job, "graded", "", key=job.key, seconds=0.0)
        yield job


class Class:
    """A learner whose answers are marked in a course that its instructor goes on with."""

    def __init__(self, base: Path) -> None:
        self.base, self.sources = base, course.sources(base)
        self.made = course.Course(self.sources[0])

    def hand_in(self, why: str, lab: str = course.LAB) -> None:
        path = self.base / "submitted" / "ada" / "week1" / f"{lab}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.made.answered(**course.RIGHT, why=why)))

    def mark(self, costs: Costs | None = None) -> list[dict[str, Any]]:
        return grade(
            self.base,
            sources=self.sources,
            out=self.base / "grades.csv",
            sandboxed=False,
            costs=costs,
            mark_all=mark_all,
        )

    def give(self, points: float, question: str = "answer-why") -> None:
        """Give points for an answer, as the formgrader does."""
        with Gradebook(f"sqlite:///{self.base / 'gradebook.db'}") as book:
            found = book.find_grade(question, course.LAB, "week1", "ada")
            found.manual_score, found.needs_manual_grade = points, False
            book.db.commit()


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A course that was marked once: nbgrader takes seconds to make a gradebook."""
    made = Class(tmp_path_factory.mktemp("course"))
    made.hand_in("Because 3 is more than 2.")
    (row,) = made.mark()
    assert read_by_hand(row) == (6, 1)
    return made.base


@pytest.fixture
def ada(marked: Path, tmp_path: Path) -> Class:
    """The course after its instructor has read the answer."""
    shutil.copytree(marked, tmp_path, dirs_exist_ok=True)
    made = Class(tmp_path)
    made.give(1.5)
    return made


def read_by_hand(row: dict[str, Any]) -> tuple[float, int]:
    """The points of a submission, and how many of its answers a person is asked to look at."""
    return row["points"], row["to_mark_by_hand"]


def test_a_lab_may_be_added_to_an_assignment_that_was_marked(ada: Class) -> None:
    ada.sources.append(ada.sources[0].with_name(f"{OTHER}.md"))
    ada.sources[-1].write_text(course.SOURCE)
    ada.hand_in("Because it is so.", lab=OTHER)
    rows = ada.mark()
    assert [(r["lab"], r["points"], r["to_mark_by_hand"]) for r in rows] == [
        (course.LAB, 7.5, 0),
        (OTHER, 6.0, 1),
    ]
    with Gradebook(f"sqlite:///{ada.base / 'gradebook.db'}") as book:
        (mine, added) = sorted(book.find_submission("week1", "ada").notebooks, key=lambda n: n.name)
        for rowset in ("grades", "comments"):
            names = [sorted(row.name for row in getattr(n, rowset)) for n in (mine, added)]
            assert names[0] == names[1] != []


def test_another_answer_in_words_is_to_be_read_again(ada: Class) -> None:
    ada.hand_in("Because it is so, as I know now.")
    assert read_by_hand(*ada.mark()) == (7.5, 1)  # the points stay
    ada.give(0.5)
    assert read_by_hand(*ada.mark()) == (6.5, 0)


def test_an_answer_that_has_not_changed_is_read_once(ada: Class) -> None:
    """Neither what tries cost nor that a submission was marked anew makes it another answer."""
    ada.give(2, "check-total")
    assert read_by_hand(*ada.mark(Costs(per_try=1))) == (5.5, 0)
    with Gradebook(f"sqlite:///{ada.base / 'gradebook.db'}") as book:
        assert book.find_grade("check-largest", course.LAB, "week1", "ada").auto_score == 1
    for record in (ada.base / "marks").rglob("*.json"):
        record.unlink()
    assert read_by_hand(*ada.mark()) == (6.5, 0)
    assert read_by_hand(*ada.mark(Costs(per_try=9))) == (4.5, 0)


def test_a_batch_that_was_stopped_forgets_no_answer(
    ada: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here between marking, whose record is there then, and entering."""
    ada.hand_in("Because it is so, as I know now.")
    with monkeypatch.context() as stopped:
        stopped.setattr(Book, "enter", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ada.mark()
    assert read_by_hand(*ada.mark()) == (7.5, 1)


def test_a_gradebook_without_the_submission_has_its_answer_to_be_read(ada: Class) -> None:
    with Gradebook(f"sqlite:///{ada.base / 'gradebook.db'}") as book:
        book.remove_submission("week1", "ada")
    assert read_by_hand(*ada.mark()) == (6, 1)
