"""An instructor's key of a lab: the solutions with one learner's names and numbers, and the rubrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from labkit import variants
from labkit.authoring import markup, release
from labkit.nbgrader_cells import Role, check_of, points_of, question_of, role_of

_OWN = re.compile(r"\byou\.([a-z_]+)\b")


def key(source: Path, learner: str) -> list[dict[str, Any]]:
    """Return one row per question of a lab: id, points, asked (by its check), solution, rubric.

    A rubric, of an answer in words, is a list of criteria with points; other answers have none.

    In a solution the learner's own values stand in the place of `you.port` and the like. What follows
    from a measurement stays the expression that takes it from the lab's tables: it differs from run to
    run, and `labkit grade` computes it from the evidence. Raises MarkupError, UsageError for an id that
    cannot be a learner's.
    """
    you = variants.of(learner)

    def own(found: re.Match[str]) -> str:
        value = getattr(you, found[1], None)
        return found[0] if value is None else repr(value)

    notebook = release.read_source(source)
    cells, rubrics = notebook.cells, notebook.metadata["labkit"]["rubrics"]
    asked = {check_of(cell): markup.docstring(cell.source) for cell in cells if check_of(cell)}
    points = {question_of(cell): points_of(cell) for cell in cells if role_of(cell).is_graded}
    rows = []
    for cell in cells:
        if not role_of(cell).is_answer:
            continue
        name, solution = question_of(cell), markup.solution(cell).strip()
        if role_of(cell) is Role.ANSWER:
            solution = _OWN.sub(own, solution)
        about = {"id": name, "points": points[name], "asked": asked.get(name, "")}
        rows.append({**about, "solution": solution, "rubric": rubrics.get(name, [])})
    return rows
