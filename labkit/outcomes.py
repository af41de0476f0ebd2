"""The checks' outcomes in this notebook so far, for a learner to look at before handing in.

A check counts by its text: IPython tells of every cell that ran, and a cell that has the text of one of
the notebook's check cells is that check. One whose text was changed is not, here as in grading.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import paths
from labkit.errors import UsageError
from labkit.evidence import cells

if TYPE_CHECKING:
    import pandas as pd

_STATUS_OF = {"CheckFailed": "fail", "Unanswered": "unanswered", "CouldNotRun": "could not run"}
_RELEASE = paths.REPOSITORY / "labs" / "release"


@dataclass(frozen=True)
class Question:
    """A check of a notebook, or an answer that a person reads (then ``text`` is empty)."""

    id: str
    text: str
    points: float


class _Tally:
    """Hears from IPython how each cell ended; the last run of a text counts."""

    def __init__(self, shell: Any) -> None:
        self.outcomes: dict[str, str] = {}
        shell.events.register("post_run_cell", self._ended)

    def _ended(self, result: Any) -> None:
        text = str(result.info.raw_cell or "").strip()
        error = result.error_before_exec or result.error_in_exec
        status = "pass" if error is None else _STATUS_OF.get(type(error).__name__, "could not run")
        self.outcomes[text] = status


@functools.cache
def listen() -> _Tally | None:
    """Begin to hear of cells; None outside of IPython, which is never loaded for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return _Tally(shell) if shell else None


def questions(notebook: Path) -> list[Question]:
    """Read a notebook's questions; raises UsageError for a file that is none."""
    try:
        found = cells.once_saved(lambda: json.loads(notebook.read_text(encoding="utf-8")))["cells"]
        marked = [(cell, cell["metadata"].get("nbgrader", {})) for cell in found]
        return [
            Question(
                marks["grade_id"].partition("-")[2],
                "" if marks["solution"] else "".join(cell["source"]).strip(),
                float(marks["points"]),
            )
            for cell, marks in marked
            if marks.get("grade")
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(
            f"the questions of {notebook} cannot be read: {type(problem).__name__}: {problem}",
            hint="take a fresh copy of the lab",
        ) from problem


def score(notebook: Path | None = None, *, release: Path = _RELEASE) -> pd.DataFrame:
    """Return a row for each question: its outcome here so far, its points, and of how many.

    Without a name it is the notebook that runs; where a front end does not tell which one that is, the
    lab in ``release`` whose checks have run. What a person reads has no points yet.
    """
    import pandas as pd

    tally = listen()
    outcomes = tally.outcomes if tally else {}
    path = notebook or cells.notebook() or _likely(release, outcomes)
    rows = []
    for question in questions(path):
        outcome = outcomes.get(question.text, "not run") if question.text else "read by a person"
        points = question.points if outcome == "pass" else 0.0
        rows.append((question.id, outcome, points if question.text else None, question.points))
    passed = sum(outcome == "pass" for _, outcome, _, _ in rows)
    all_points = sum(points or 0.0 for _, _, points, _ in rows)
    rows.append(("all", f"{passed} passed", all_points, sum(most for *_, most in rows)))
    table = pd.DataFrame(rows, columns=["question", "outcome", "points", "of"])
    return table.set_index("question")


def _likely(release: Path, outcomes: dict[str, str]) -> Path:
    """Find the lab whose checks ran here."""
    for path in sorted(release.glob("*.ipynb")):
        if any(q.text and q.text in outcomes for q in questions(path)):
            return path
    raise UsageError(
        "no check of a lab has run in this notebook yet", hint="run the cells, then labkit.score()"
    )
