"""The labs of a learner's folder: what each is about, and how far the learner is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labkit import nbgrader_cells, outcomes
from labkit.errors import UnknownNameError
from labkit.nbgrader_cells import Role
from labkit.outcomes import Outcome

_ABOUT = re.compile(r"\*\*What you'll do\.\*\* (.+)")
_CODE = re.compile(r"`([^`]*)`")


@dataclass(frozen=True)
class LabRow:
    """A lab, as the start page lists it.

    ``checks`` counts its questions with a check, ``run`` those whose check has run as it was released,
    ``passed`` those that passed then; ``points`` of ``of`` are what those give, before a person reads
    the answers in words. ``problem`` says why the learner's copy cannot be read, where it cannot.
    """

    name: str
    title: str
    about: str
    there: bool
    """Whether the learner's folder has a copy."""
    checks: int
    run: int = 0
    passed: int = 0
    points: float = 0.0
    of: float = 0.0
    problem: str = ""


def of_folder(folder: Path, release: Path) -> list[LabRow]:
    """Return a row for each released lab, in order, with what the saved copy in `folder` tells."""
    return [_row(folder / path.name, path) for path in sorted(release.glob("*.ipynb"))]


@dataclass(frozen=True)
class QuestionRow:
    """A question of a lab: the cell that gives its points, by nbgrader's id, and the text of its check.

    `text` is empty for an answer in words, which a person reads; `hints` counts those there are.
    """

    id: str
    cell: str
    text: str
    of: float
    hints: int


def questions(name: str, release: Path) -> list[QuestionRow]:
    """Return the questions of a released lab in their order; raises UnknownNameError."""
    lab = released(name, release)
    return [
        QuestionRow(
            question.id,
            nbgrader_cells.grade_id(Role.CHECK if question.text else Role.TEXT_ANSWER, question.id),
            question.text,
            question.points,
            len(question.hints),
        )
        for question in outcomes.questions(lab)
    ]


def released(name: str, release: Path) -> Path:
    """Return the released notebook of a name; raises UnknownNameError."""
    known = {path.name: path for path in sorted(release.glob("*.ipynb"))}
    if name not in known:
        raise UnknownNameError("lab", name, known, hint="open one of the labs, under its own name")
    return known[name]


def _row(copy: Path, released: Path) -> LabRow:
    notebook = json.loads(released.read_text(encoding="utf-8"))
    title, about = _told("".join(notebook["cells"][0]["source"]))
    questions = [question for question in outcomes.questions(released) if question.text]
    row = LabRow(
        name=released.name,
        title=title or released.stem,
        about=about,
        there=copy.is_file(),
        checks=len(questions),
        of=sum(question.points for question in questions),
    )
    if not row.there:
        return row
    try:
        ended = _ended(json.loads(copy.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        return replace(row, problem=f"{copy.name} is no notebook that can be read: {problem}")
    known = [(question, ended[question.text]) for question in questions if question.text in ended]
    passed = [question for question, outcome in known if outcome is Outcome.PASS]
    points = sum(question.points for question in passed)
    return replace(row, run=len(known), passed=len(passed), points=points)


def _told(text: str) -> tuple[str, str]:
    """Return a lab's title, and what one does in it, as its first cell tells them."""
    found = _ABOUT.search(text)
    title = text.splitlines()[0].lstrip("# ") if text else ""
    return title, _CODE.sub(r"\1", found[1]) if found else ""


def _ended(notebook: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return how the checks of a saved notebook ended that have run, by their text."""
    checks = [c for c in notebook["cells"] if nbgrader_cells.role_of(c) is Role.CHECK]
    ran = [cell for cell in checks if cell.get("execution_count")]
    return {"".join(cell["source"]).strip(): _outcome(cell) for cell in ran}


def _outcome(cell: nbgrader_cells.Cell) -> Outcome:
    errors = [row["ename"] for row in cell["outputs"] if row["output_type"] == "error"]
    return outcomes.of_error(errors[0]) if errors else Outcome.PASS
