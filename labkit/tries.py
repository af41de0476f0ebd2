"""What a learner tries: what a check tells after a miss, hints one by one, and a note of both.

In a notebook a wrong answer is first told where to look. What was measured it is told after the third
different wrong answer: to run a check again with the same one is no new try. Hints are there for who
asks. Tries, hints and predictions are lines of the evidence (`labkit.evidence.notes`), so a kernel that
is restarted goes on where the one before it was.

Outside of a learner's notebook, as in marking, a check tells at once what was measured.
"""

from __future__ import annotations

import functools
import os
from collections import defaultdict
from typing import TYPE_CHECKING

from labkit import outcomes
from labkit.errors import UnknownNameError, UsageError
from labkit.evidence import cells, notes
from labkit.outcomes import Question
from labkit.plain import begin

if TYPE_CHECKING:
    from labkit.evidence.recorded import Recorder

TOLD_AFTER = 3
"""So many different wrong answers to one question are told what was measured."""
_LONGEST = 500  # characters of an answer that are kept


class _Kept:
    """What this notebook's learner has tried so far, by question."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.shown: dict[str, int] = defaultdict(int)  # the last hint that was shown
        self.missed = ""  # the question that had the last miss
        for line in notes.earlier():
            row = line.row
            if line.kind == "try":
                self.miss(row["question"], row["name"], row["answer"])
            elif line.kind == "hint":
                self.hint(row["question"], row["step"])

    def miss(self, question: str, name: str, answer: str) -> None:
        """Keep a wrong answer; with it the first hint is shown."""
        self.missed = question
        self.answers[question, name].add(answer)
        self.shown[question] = max(1, self.shown[question])

    def hint(self, question: str, step: int) -> None:
        """Keep that a hint was asked for."""
        self.shown[question] = max(step, self.shown[question])


@functools.cache
def _kept_by(recorder: Recorder | None) -> _Kept:
    return _Kept()


def _kept() -> _Kept:
    """Return what was tried, as the evidence has it that is kept now: there is none before `attach`."""
    return _kept_by(notes.recorder())


def asking() -> Question | None:
    """Return the question whose check runs now; None in marking, and where no notebook's check runs."""
    if os.environ.get("NBGRADER_EXECUTION"):
        return None
    return outcomes.question_of(cells.now().text.strip())


def missed(name: str, answer: str, measured: str, *, wrong: str = "is not what was measured") -> str:
    """Note a wrong answer; returns the sentence for it: where to look, or in the end `measured`.

    `name` is what the check calls the value, `answer` the one that is `wrong`, as it is shown.
    """
    question = asking()
    if question is None or not question.hints:
        return measured
    kept, answer = _kept(), answer[:_LONGEST]
    kept.missed = question.id
    if answer not in kept.answers[question.id, name]:
        kept.miss(question.id, name, answer)
        notes.note("try", {"question": question.id, "name": name, "answer": answer})
    if len(kept.answers[question.id, name]) >= TOLD_AFTER:
        return measured
    more = ""
    if kept.shown[question.id] < len(question.hints):
        more = f'\nAnother hint: labkit.hint("{question.id}")'
    return f"{begin(name)}: {answer} {wrong}. Where to look: {question.hints[0]}{more}"


def predicted(name: str, prediction: str, measured: str) -> None:
    """Note a prediction and what was measured in its place."""
    if question := asking():
        row = {"question": question.id, "name": name}
        notes.note(
            "prediction", row | {"predicted": prediction[:_LONGEST], "measured": measured[:_LONGEST]}
        )


def hints(question: str = "") -> list[str]:
    """Return the hints of a question that are shown by now, with one more than before.

    A question is called LAB.QUESTION, or QUESTION alone in its own notebook; without a name it is the
    one that was missed last. Raises UnknownNameError, UsageError.
    """
    wanted = question or _kept().missed
    if not wanted:
        raise UsageError("no check has missed yet", hint='labkit.hint("03.who"), say')
    found = find(wanted)
    if not found.hints:
        raise UsageError(f"there are no hints for {wanted}", hint="take a fresh copy of the lab")
    kept = _kept()
    step = kept.shown[found.id] + 1
    if step <= len(found.hints):
        kept.hint(found.id, step)
        notes.note("hint", {"question": found.id, "step": step})
    return list(found.hints[:step])


def show(question: str = "") -> None:
    """Print the hints of a question, as `hints` returns them."""
    for number, text in enumerate(hints(question), 1):
        print(f"Hint {number}: {text}")


def find(question: str) -> Question:
    """Return a check's question by its name; raises UnknownNameError, and UsageError for a bad name."""
    lab, dot, name = question.rpartition(".")
    notebook = outcomes.notebook_of(lab) if dot else outcomes.this_notebook()
    asked = outcomes.questions(notebook)
    known = {q.id: q for q in asked if q.text}
    if name in {q.id for q in asked} - known.keys():
        raise UsageError(
            f"{name} is answered in words, which a person reads; there are no hints for it",
            hint=f"the text above it; or a hint for {', '.join(known)}",
        )
    if name not in known:
        raise UnknownNameError(f"question of {notebook.stem}", name, list(known))
    return known[name]
