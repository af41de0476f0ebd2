"""Merge a learner's answers with the check cells of the lab's source.

Nothing that a submission says about its check cells counts: their text, points and hidden tests come
from the source, each in the place where the learner has it. What differs from the notebook as it was
handed out is reported as a finding for a person; it is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import nbformat

from labkit.authoring.names import names_in
from labkit.evidence.audit import Finding
from labkit.nbgrader_cells import Role, grade_id_of, question_of, role_of

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass
class Merged:
    """The notebook that is run and marked, and what was found when it was put together."""

    notebook: NotebookNode
    findings: list[Finding] = field(default_factory=list)
    without_answer: set[str] = field(default_factory=set)
    """The questions whose answer cell is missing."""


def merge(gradable: NotebookNode, released: NotebookNode, submitted: Sequence[NotebookNode]) -> Merged:
    """Put the learner's answers and the source's checks together, in the learner's order.

    ``gradable`` is the lab with its hidden tests, ``released`` as it was handed out, ``submitted`` the
    cells that `submissions.read` returns. Of a cell that is there twice the first one counts.
    """
    merge = _Merge(gradable, released)
    for cell in submitted:
        merge.take(cell)
    merge.put_back_missing()
    merge.report_replacednames_in()
    return merge.merged


class _Merge:
    """One merge in progress; a master is the source's cell that a submitted cell stands for."""

    def __init__(self, gradable: NotebookNode, released: NotebookNode) -> None:
        self._gradable, self._released = gradable, released
        self._masters = {cell.id: cell for cell in gradable.cells}
        self._id_by_grade_id = {grade_id_of(c): c.id for c in gradable.cells if grade_id_of(c)}
        self._released_text = {cell.id: cell.source.strip() for cell in released.cells}
        given = (c for c in released.cells if role_of(c) is Role.GIVEN and c.source.strip())
        self._id_by_text = {cell.source.strip(): cell.id for cell in given}
        self._placed: dict[str, NotebookNode] = {}
        """By the id of its master, the cell that stands for it."""
        self._own_cells = 0
        self.merged = Merged(_node({**deepcopy(gradable), "cells": []}))

    def take(self, cell: NotebookNode) -> None:
        """Add the next submitted cell, or what the source has in its place."""
        master = self._master_of(cell)
        is_placed = master is not None and master.id in self._placed
        if master is None or (is_placed and role_of(master) is Role.GIVEN):
            self._own_cells += 1
            self._append(_without_metadata(cell, f"own-{self._own_cells}"))
            return
        name, question = grade_id_of(master), question_of(master)
        if is_placed:
            self._report(question, f"the cell {name} is there more than once; the first counts")
            return
        role = role_of(master)
        if role is Role.GIVEN:
            taken = self._given(cell, master)
        elif role is Role.CHECK:
            taken = deepcopy(master)
            if self._is_changed(cell, master):
                sentence = f"the check cell {name} was edited; it was put back as it was handed out"
                self._report(question, sentence)
        else:
            taken = deepcopy(master)
            taken.source = cell.source
            if cell.cell_type != master.cell_type:
                self._report(question, f"the answer cell {name} was made a {cell.cell_type} cell")
        self._placed[master.id] = taken
        self._append(taken)

    def put_back_missing(self) -> None:
        """Put the missing checks, and the missing answers that a person reads, where they stood."""
        last: NotebookNode | None = None
        missing_code = 0
        for master in self._gradable.cells:
            if master.id in self._placed:
                last = self._placed[master.id]
                continue
            role, name, question = role_of(master), grade_id_of(master), question_of(master)
            if role is Role.GIVEN:
                missing_code += master.cell_type == "code"
                continue
            if role.is_answer:
                self.merged.without_answer.add(question)
            if role is Role.ANSWER:
                self._report(question, f"the answer cell {name} is missing")
                continue
            self._report(question, f"the cell {name} is missing; it was put back")
            cells = self.merged.notebook.cells
            at = next((n for n, cell in enumerate(cells) if cell is last), -1)
            last = deepcopy(master)
            cells.insert(at + 1, last)
        if missing_code:
            are = "cells are" if missing_code > 1 else "cell is"
            self._report(None, f"{missing_code} given code {are} missing")

    def report_replacednames_in(self) -> None:
        """Report learners' cells that set a name which a given cell sets and a check reads."""
        checks = [c for c in self._gradable.cells if role_of(c) is Role.CHECK]
        given = [c for c in self._released.cells if c.cell_type == "code" and role_of(c) is Role.GIVEN]
        protected = {name for c in checks for name in names_in(c.source)[1]}
        protected &= {name for c in given for name in names_in(c.source)[0]}
        originals = {c.id: c.source for c in self._released.cells}
        for cell in self.merged.notebook.cells:
            is_masters = self._placed.get(cell.id) is cell
            original = originals.get(cell.id, "") if is_masters else ""
            is_changed = cell.source.strip() != original.strip()
            if not is_changed or cell.cell_type != "code" or role_of(cell) is Role.CHECK:
                continue
            if names := sorted((names_in(cell.source)[0] - names_in(original)[0]) & protected):
                name = grade_id_of(cell)
                where = f"the cell {name}" if name else "a cell of the learner's own"
                sentence = f"{where} sets {', '.join(names)}, which a check reads and a given cell sets"
                self._report(question_of(cell) or None, sentence)

    def _master_of(self, cell: NotebookNode) -> NotebookNode | None:
        """Return the source's cell that a cell stands for: by its grade id, its id or its text."""
        key = self._id_by_grade_id.get(grade_id_of(cell))
        if key is None:
            key = cell.id if cell.id in self._masters else self._id_by_text.get(cell.source.strip())
        return self._masters.get(key) if key else None

    def _given(self, cell: NotebookNode, master: NotebookNode) -> NotebookNode:
        original = self._released_text[master.id]
        if cell.source.strip() != original:
            first = next(iter(original.splitlines()), "")
            sentence = f"a given cell was edited, the one that begins with `{first[:60]}`"
            self._report(None, sentence)
        return _without_metadata(cell, master.id)

    def _is_changed(self, cell: NotebookNode, master: NotebookNode) -> bool:
        text = self._released_text[master.id]
        return bool(cell.source.strip() != text or cell.cell_type != master.cell_type)

    def _append(self, cell: NotebookNode) -> None:
        self.merged.notebook.cells.append(cell)

    def _report(self, question: str | None, sentence: str) -> None:
        self.merged.findings.append(Finding(question, sentence))


def _node(content: dict[str, Any]) -> NotebookNode:
    node: NotebookNode = nbformat.from_dict(content)  # type: ignore[no-untyped-call]
    return node


def _without_metadata(cell: NotebookNode, cell_id: str) -> NotebookNode:
    """Copy a cell without its metadata and outputs."""
    taken = {"cell_type": cell.cell_type, "id": cell_id, "source": cell.source, "metadata": {}}
    if cell.cell_type == "code":
        taken |= {"execution_count": None, "outputs": []}
    return _node(taken)
