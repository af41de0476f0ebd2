"""The judge: runs a lab's own cells and checks where no learner's code has ever run.

The learner's kernel has ended before the judge's begins. Of it the judge gets plain data only: for each
cell that reads an answer, the values that the answer's names had when the learner's notebook came to
that cell (`labkit.grading.values`). All else it makes anew, from the lab's source and the evidence: it
runs the given cells in the order of the source, leaves the answer cells out, and runs the checks with
their hidden tests. Neither these nor what they expect are anywhere while a learner's code runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from labkit.authoring import markup
from labkit.authoring.names import names_in
from labkit.errors import CheckFailed, CouldNotRun
from labkit.grading import values
from labkit.grading.kernel import CellResult, Kernel, KernelLost, calling, error_output
from labkit.nbgrader_cells import Role, check_of, role_of
from labkit.outcomes import Outcome, explained

if TYPE_CHECKING:
    from nbformat import NotebookNode

Snapshot = Mapping[str, values.Document]
"""The values of the names that a cell reads of the answers, by name."""


class Verdict(NamedTuple):
    """What one check said: its outcome, and a sentence."""

    outcome: Outcome
    message: str


@dataclass
class Judgement:
    """What the judge found, by question."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    """What each check showed."""
    tables: dict[str, list[str]] = field(default_factory=dict)
    """The names whose value is a table of the learner's own, which was taken as it is."""
    problem: str = ""
    """What stopped the judge; empty where nothing did."""


def names_read(gradable: NotebookNode) -> dict[str, list[str]]:
    """Return the names of answers that a cell reads, by the id of the cell: every check, and given
    cells that read one."""
    code = [cell for cell in gradable.cells if cell.cell_type == "code"]
    answers = {name for c in code if role_of(c) is Role.ANSWER for name in names_in(c.source)[0]}
    found = {}
    for cell in code:
        if role_of(cell) is Role.ANSWER:
            continue
        names = sorted(names_in(cell.source)[1] & answers)
        if names or check_of(cell) is not None:
            found[cell.id] = names
    return found


def judge(gradable: NotebookNode, snapshots: Mapping[str, Snapshot], kernel: Kernel) -> Judgement:
    """Run a lab's checks on a learner's answers; ``snapshots`` are by the id of the cell.

    A check without a snapshot was not reached in the learner's notebook and is not judged. Raises
    KernelStartError.
    """
    court = _Court(gradable, snapshots, kernel)
    cells = [cell for cell in gradable.cells if cell.cell_type == "code" and cell.source.strip()]
    last = max((n for n, c in enumerate(cells) if check_of(c) and c.id in snapshots), default=-1)
    if last < 0:
        return court.judgement
    try:
        with kernel.running():
            kernel.run(calling("judge_kernel.begin"), quiet=True)
            for cell in cells[: last + 1]:
                court.hear(cell)
    except KernelLost as why:
        court.judgement.problem = str(why)
    return court.judgement


class _Court:
    """One judgement in progress."""

    def __init__(
        self, gradable: NotebookNode, snapshots: Mapping[str, Snapshot], kernel: Kernel
    ) -> None:
        self._names, self._snapshots, self._kernel = names_read(gradable), snapshots, kernel
        self._broken = ""
        """Of the first given cell that gave no result: its first line, and why."""
        self.judgement = Judgement()

    def hear(self, cell: NotebookNode) -> None:
        """Take the next cell of the source."""
        if (question := check_of(cell)) is not None:
            if cell.id in self._snapshots:
                self._check(cell, question)
        elif role_of(cell) is Role.GIVEN:
            result = self._put(cell)
            if result.ok:
                result = self._kernel.run(cell.source, cell_id=cell.id)
            if not result.ok and not self._broken:
                first = cell.source.strip().partition("\n")[0][:60]
                self._broken = f"the given cell `{first}` ended in {result.error}: {result.message}"

    def _put(self, cell: NotebookNode) -> CellResult:
        """Set the names of answers that a cell reads."""
        names = self._names.get(cell.id)
        if not names:
            return CellResult()
        text = json.dumps(self._snapshots.get(cell.id, {}))
        return self._kernel.run(calling("values.put", names, text), quiet=True)

    def _check(self, cell: NotebookNode, question: str) -> None:
        snapshot = self._snapshots[cell.id]
        tables = [name for name, value in snapshot.items() if values.is_table(value)]
        if tables:
            self.judgement.tables[question] = tables
        foreign = ((name, values.foreign_type(value)) for name, value in snapshot.items())
        refused = next(((name, kind) for name, kind in foreign if kind), None)
        if refused:
            name, kind = refused
            told = f"{name} should be a plain value (a number, a text, a list of them); found {kind}."
            outputs, verdict = [error_output(CheckFailed.__name__, told)], Verdict(Outcome.FAIL, told)
        else:
            result = self._put(cell)
            if result.ok:
                result, verdict = self._run_check(cell)
            else:
                verdict = _verdict(result)
            outputs = result.outputs
        if verdict.outcome is Outcome.COULD_NOT_RUN and self._broken:
            verdict = Verdict(verdict.outcome, f"{verdict.message} Before, {self._broken}")
        self.judgement.verdicts[question], self.judgement.outputs[question] = verdict, outputs

    def _run_check(self, cell: NotebookNode) -> tuple[CellResult, Verdict]:
        """Run what the learner sees of a check first, so that a hidden test does not speak."""
        visible = markup.without_hidden_tests(cell.source)
        has_hidden = visible != cell.source
        if has_hidden:
            result = self._kernel.run(visible, cell_id=cell.id)
            if not result.ok:
                return result, _verdict(result)
        result = self._kernel.run(cell.source, cell_id=cell.id)
        if has_hidden and not result.ok:
            message = "What you see of this check passes; a further test does not."
            return result, Verdict(Outcome.FAIL, message)
        return result, _verdict(result)


def not_judged(why: str) -> tuple[Verdict, list[Any]]:
    """Return the verdict, and the output, of a check that was not run, for a reason.

    nbgrader gives full points to one without output.
    """
    return Verdict(Outcome.COULD_NOT_RUN, why), [error_output(CouldNotRun.__name__, why)]


def _verdict(result: CellResult) -> Verdict:
    if result.ok:
        printed = "".join(o.text for o in result.outputs if o.get("name") == "stdout")
        return Verdict(Outcome.PASS, printed)
    return Verdict(*explained(result.error, result.message))
