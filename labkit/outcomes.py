"""The four outcomes of a check, and a learner's score in the notebook that runs.

The outcome of a check follows from the error that its cell ended in, by the name of the error's class
in `labkit.errors`: a kernel, which is another process, sends no more than that name and the message.

The score is for a learner to look at before handing in. IPython reports every cell that ran, and a cell
with the text of one of the notebook's check cells counts as that check. A check whose text was changed
does not count, here as in grading.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit import nbgrader_cells, paths
from labkit.errors import CheckFailed, CouldNotRun, Unanswered, UnknownNameError, UsageError
from labkit.evidence import cells
from labkit.nbgrader_cells import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


class Outcome(StrEnum):
    """How a check ended, in the words that people, reports and JSON get."""

    PASS = "pass"
    FAIL = "fail"
    UNANSWERED = "unanswered"
    COULD_NOT_RUN = "could not run"


_BY_ERROR = {
    CheckFailed.__name__: Outcome.FAIL,
    Unanswered.__name__: Outcome.UNANSWERED,
    CouldNotRun.__name__: Outcome.COULD_NOT_RUN,
}


def of_error(name: str) -> Outcome:
    """Return the outcome of a check that ended in an error with this class name."""
    return _BY_ERROR.get(name, Outcome.COULD_NOT_RUN)


def explained(name: str, message: str) -> tuple[Outcome, str]:
    """Return the outcome of a check that ended in an error, and the sentence that explains it."""
    if name in _BY_ERROR:
        return _BY_ERROR[name], message
    return Outcome.COULD_NOT_RUN, f"The check ended in {name}: {message}"


# --- the score in the notebook that runs ---------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A question of a notebook; ``text`` is its check's, empty for an answer that a person reads."""

    id: str
    text: str
    points: float
    hints: tuple[str, ...] = ()


class _OutcomeLog:
    """The outcome of every text that ran as a cell, as IPython reports it; the last run counts."""

    def __init__(self, shell: Any) -> None:
        self.outcomes: dict[str, Outcome] = {}
        shell.events.register("post_run_cell", self._on_end)
        shell.set_custom_exc((NameError,), _show_name_error)

    def _on_end(self, result: Any) -> None:
        text = str(result.info.raw_cell or "").strip()
        error = result.error_before_exec or result.error_in_exec
        self.outcomes[text] = Outcome.PASS if error is None else of_error(type(error).__name__)


def _show_name_error(
    shell: Any, kind: type, error: NameError, trace: Any, tb_offset: int | None = None
) -> None:
    """Tell a learner whose check lacks a name what to run; other cells get IPython's traceback."""
    check = None
    with contextlib.suppress(UsageError):
        check = question_of(cells.now().text.strip())
    if check and error.name:
        shown = [
            f"NameError: {error}",
            f"The check reads {error.name}, and no cell that gives it a value has run in this kernel.",
            "Next step: run the cells above, from the first one without a number (Shift-Enter)",
        ]
    else:
        shown = shell.InteractiveTB.structured_traceback(kind, error, trace, tb_offset=tb_offset)
    shell._showtraceback(kind, error, shown)  # who takes an error over has to show it, too


@functools.cache
def listen() -> _OutcomeLog | None:
    """Start to log outcomes; None outside of IPython. Never imports IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return _OutcomeLog(shell) if shell else None


def questions(notebook: Path) -> list[Question]:
    """Read a notebook's questions; raises UsageError for a file that is no notebook."""
    try:
        found = cells.once_saved(lambda: json.loads(notebook.read_text(encoding="utf-8")))
        hints = found.get("metadata", {}).get("labkit", {}).get("hints", {})
        graded = [cell for cell in found["cells"] if nbgrader_cells.role_of(cell).is_graded]
        return [_question(cell, hints) for cell in graded]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UsageError(
            f"the questions of {notebook} cannot be read: {type(problem).__name__}: {problem}",
            hint="take a fresh copy of the lab",
        ) from problem


def _question(cell: nbgrader_cells.Cell, hints: Mapping[str, Sequence[str]]) -> Question:
    name = nbgrader_cells.question_of(cell)
    text = "".join(cell["source"]).strip() if nbgrader_cells.role_of(cell) is Role.CHECK else ""
    given = tuple(map(str, hints.get(name, ()))) if text else ()
    return Question(name, text, nbgrader_cells.points_of(cell), given)


def question_of(text: str) -> Question | None:
    """Return the question of this notebook whose check has this text; None where there is none."""
    if not text:
        return None
    log = listen()
    own = cells.notebook()
    labs = (
        [questions(own)]
        if own
        else [asked for _, asked, _ in _by_checks_run(_released_labs(), log.outcomes if log else {})]
    )
    for question in itertools.chain.from_iterable(labs):
        if question.text == text:
            return question
    return None


def this_notebook() -> Path:
    """Return the notebook that runs, or the released lab whose checks have run; raises UsageError."""
    log = listen()
    return cells.notebook() or _lab_that_ran(_released_labs(), log.outcomes if log else {})


def notebook_of(lab: str) -> Path:
    """Return the released notebook of a lab, by its number or name; raises UnknownNameError."""
    labs = {path.stem: path for path in sorted(_released_labs().glob("*.ipynb"))}
    for name, path in labs.items():
        if lab in (name, name[3:]) or lab.zfill(2) == name[:2]:
            return path
    raise UnknownNameError("lab", lab, list(labs))


def score(notebook: Path | None = None, *, release: Path | None = None) -> pd.DataFrame:
    """Return the score in this notebook so far: one row per question, and a last row for all of them.

    Index ``question``; columns ``outcome`` (one of the four, "not run" or "read by a person"),
    ``points`` so far (missing for an answer that a person reads) and ``of`` how many.

    Without ``notebook`` it is the one that runs. Where the front end does not say which one that is, it
    is the lab in ``release``, by default the kit's released labs, whose checks have run. Raises
    UsageError where no check has run, and for a file that is no notebook.
    """
    import pandas as pd

    log = listen()
    outcomes = log.outcomes if log else {}
    path = notebook or cells.notebook() or _lab_that_ran(release or _released_labs(), outcomes)
    rows = []
    for question in questions(path):
        outcome = outcomes[question.text].value if question.text in outcomes else "not run"
        points: float | None = question.points if outcome == Outcome.PASS else 0.0
        if not question.text:
            outcome, points = "read by a person", None
        rows.append((question.id, outcome, points, question.points))
    passed = sum(outcome == Outcome.PASS for _, outcome, _, _ in rows)
    points_so_far = sum(points or 0.0 for _, _, points, _ in rows)
    rows.append(("all", f"{passed} passed", points_so_far, sum(most for *_, most in rows)))
    table = pd.DataFrame(rows, columns=["question", "outcome", "points", "of"])
    return table.set_index("question")


def _released_labs() -> Path:
    return paths.RELEASE


def _lab_that_ran(release: Path, outcomes: Mapping[str, Outcome]) -> Path:
    """Return the lab whose checks have run here."""
    for path, _, ran in _by_checks_run(release, outcomes):
        if ran:
            return path
    raise UsageError(
        "no check of a lab has run in this notebook yet", hint="run the cells, then labkit.score()"
    )


def _by_checks_run(
    release: Path, outcomes: Mapping[str, Outcome]
) -> list[tuple[Path, list[Question], int]]:
    """Return each lab, its questions, and how many checks of them have run here, the most first.

    Some checks have the same text in all labs.
    """
    labs = [(path, questions(path)) for path in sorted(release.glob("*.ipynb"))]
    ran = [(path, asked, sum(q.text in outcomes for q in asked if q.text)) for path, asked in labs]
    return sorted(ran, key=lambda row: -row[2])
