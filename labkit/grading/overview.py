"""The page about a whole class, for its instructors: who is where, and which check is missed most.

It is made from the rows of a batch (`labkit.grading.results`) and nothing else. It is nobody's
feedback: it names all learners, so it lies beside their folders and in none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.authoring.report import render
from labkit.evidence.signing import Signed
from labkit.grading import results
from labkit.outcomes import Outcome

NAME = "class.html"  # in the course folder
_MOST = 5  # checks that head the page
_NOT_JUDGED = ("missing", "refused")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Cell:
    """Where one learner is in one lab."""

    row: Row

    @property
    def was_judged(self) -> bool:
        """Whether there was something to mark."""
        return self.row["status"] not in _NOT_JUDGED

    @property
    def checks(self) -> list[Mapping[str, Any]]:
        """The questions that a check judges."""
        return [question for question in self.row["questions"] if not question["in_words"]]

    @property
    def passed(self) -> int:
        """How many checks passed."""
        return sum(question["status"] == Outcome.PASS for question in self.checks)

    @property
    def findings(self) -> list[str]:
        """What does not fit, a sentence each."""
        found = [
            f"{one['question']}: {one['sentence']}" if one["question"] else one["sentence"]
            for one in self.row["findings"]
        ]
        found += [f"like {one['with']}: {'; '.join(one['shared'])}" for one in self.row["alike"]]
        if self.row["evidence"] in (Signed.BROKEN, Signed.UNSIGNED):
            found.append(f"the evidence's signature: {self.row['evidence']}")
        return found

    @property
    def is_odd(self) -> bool:
        """Whether it could not be marked as it should, or something does not fit."""
        return self.row["status"] not in ("graded", "missing") or bool(self.findings)


@dataclass(frozen=True)
class _Learner:
    """A learner's place in each lab of the class, None where there is none."""

    name: str
    cells: tuple[_Cell | None, ...]

    @property
    def points(self) -> float:
        """The points of all labs."""
        return sum((cell.row["points"] or 0.0 for cell in self.cells if cell), 0.0)

    @property
    def most(self) -> float:
        """How many they could be."""
        return sum((cell.row["max"] for cell in self.cells if cell), 0.0)


@dataclass
class _Check:
    """How a class did at one check."""

    lab: str
    id: str
    asked: str
    counts: Counter[str] = field(default_factory=Counter)
    """How many learners had each of the four outcomes."""
    tries: int = 0
    hints: int = 0

    @property
    def missed(self) -> int:
        """How many did not pass it."""
        return self.counts.total() - self.counts[Outcome.PASS]

    @property
    def share(self) -> float:
        """Of those who handed the lab in, the part that did not pass it."""
        return self.missed / self.counts.total()


@dataclass(frozen=True)
class _Lab:
    """How a class did in one lab."""

    name: str
    handed_in: int
    expected: int
    to_read: int
    """Answers in words that wait for a person."""
    checks: tuple[_Check, ...]
    predictions: tuple[Row, ...]


def page(rows: Sequence[Row]) -> str:
    """Return the page about a class, one HTML document that loads nothing, from a batch's rows."""
    cells = [_Cell(row) for row in rows]
    columns = sorted({(row["assignment"], row["lab"]) for row in rows})
    by_place = {(c.row["student"], c.row["assignment"], c.row["lab"]): c for c in cells}
    learners = [
        _Learner(name, tuple(by_place.get((name, *column)) for column in columns))
        for name in sorted({row["student"] for row in rows}, key=str.casefold)
    ]
    labs = _labs(cells)
    missed = [check for lab in labs for check in lab.checks if check.missed]
    return render(
        "class.html.j2",
        columns=columns,
        learners=learners,
        cells=cells,
        sums=[_sum([c for c in cells if (c.row["assignment"], c.row["lab"]) == x]) for x in columns],
        labs=labs,
        missed=sorted(missed, key=lambda check: (-check.share, -check.tries))[:_MOST],
        has_tries=any(check.tries or check.hints for lab in labs for check in lab.checks),
        outcomes=list(Outcome),
    )


def _sum(cells: Sequence[_Cell]) -> dict[str, float | None]:
    """Sum a column up: how many handed in, of how many, and their mean of points."""
    points = [cell.row["points"] for cell in cells if cell.was_judged]
    mean = sum(points) / len(points) if points else None
    return {"handed_in": len(points), "expected": len(cells), "mean": mean}


def _labs(cells: Sequence[_Cell]) -> list[_Lab]:
    """Sum the class up lab by lab."""
    summed = results.predictions(cell.row for cell in cells)
    labs = []
    for name in sorted({cell.row["lab"] for cell in cells}):
        here = [cell for cell in cells if cell.row["lab"] == name]
        judged = [cell for cell in here if cell.was_judged]
        predicted = tuple(one for one in summed if one["lab"] == name)
        to_read = sum(cell.row["to_mark_by_hand"] for cell in here)
        labs.append(_Lab(name, len(judged), len(here), to_read, _checks(name, judged), predicted))
    return labs


def _checks(lab: str, cells: Iterable[_Cell]) -> tuple[_Check, ...]:
    """Count the outcomes of each check of a lab, the one that is missed most first."""
    found: dict[str, _Check] = {}
    for cell in cells:
        for question in cell.checks:
            check = found.setdefault(question["id"], _Check(lab, question["id"], question["asked"]))
            check.counts[question["status"]] += 1
            check.tries += question["tries"]
            check.hints += question["hints"]
    return tuple(sorted(found.values(), key=lambda check: (-check.missed, -check.tries)))
