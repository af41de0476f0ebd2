"""What was handed in: where it lies, what it holds, and the notebook that marks are given by.

A submission is a stranger's file. Nothing it says of its check cells counts: they come from the lab's
source, each in the place of the learner's. What differs is told, as a report and not a verdict.
"""

from __future__ import annotations

import ast
import json
import symtable
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from labkit.errors import LabkitError, UsageError
from labkit.evidence import files as evidence
from labkit.evidence.audit import Finding

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_BYTES = 512 * 1024 * 1024  # of a notebook's file; most of a large one is output, which is let go
MAX_SOURCE = 1_000_000  # characters of one cell
MAX_CELLS = 5000
_SHOWN = 100_000  # characters of a text output that the evidence is asked for


class Unreadable(LabkitError):
    """A submission is no notebook; its text says what it is."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner; ``path`` may not exist, where nothing was handed in."""

    student: str
    assignment: str  # as nbgrader calls it: a folder with one notebook or more
    lab: str
    path: Path

    @property
    def evidence(self) -> Path | None:
        """The evidence beside the notebook, packed or not; None where there is none."""
        found = [evidence.beside(self.path), Path(f"{evidence.beside(self.path)}.gz")]
        return next((path for path in found if path.is_file() and not path.is_symlink()), None)


def find(
    directory: Path, labs: Iterable[str], leave: Iterable[Path] = ()
) -> tuple[list[Submission], list[str]]:
    """Find submissions as DIR/STUDENT/NOTEBOOK.ipynb or in nbgrader's submitted/STUDENT/ASSIGNMENT/.

    Returns them by learner, and sentences about what was passed over. A learner without a notebook that
    others handed in gets a submission whose file is not there. ``leave`` are folders that are no
    learner's. Raises UsageError where there is none.
    """
    base = directory / "submitted" if (directory / "submitted").is_dir() else directory
    known, left = set(labs), {path.resolve() for path in leave}
    found, notes = [], []
    try:
        learners = [p for p in sorted(base.iterdir()) if not p.name.startswith((".", "_"))]
    except OSError as problem:
        told = f"{directory} cannot be read: {problem.strerror}"
        raise UsageError(
            told, hint="labkit grade DIR, with DIR/STUDENT/NOTEBOOK.ipynb in it"
        ) from problem
    learners = [p for p in learners if p.is_dir() and p.resolve() not in left]
    students = []
    for folder in learners:
        if folder.is_symlink():
            notes.append(f"{folder} is a link; nothing in it was graded")
            continue
        students.append(folder.name)
        for path in sorted([*folder.glob("*.ipynb"), *folder.glob("*/*.ipynb")]):
            assignment = path.stem if path.parent == folder else path.parent.name
            if path.stem in known and path.parent.is_symlink():
                notes.append(f"{path.parent} is a link; nothing in it was graded")
            elif path.stem in known:
                found.append(Submission(folder.name, assignment, path.stem, path))
            elif not path.name.startswith("."):
                notes.append(f"{path}: no lab is called {path.stem}")
    if not found:
        raise UsageError(
            f"{base} holds no submission: no STUDENT/NOTEBOOK.ipynb with the name of a lab",
            hint=f"the labs are {', '.join(sorted(known)) or 'none'}",
        )
    there = {(s.student, s.assignment, s.lab) for s in found}
    wanted = {(s.assignment, s.lab): s for s in found}
    for student in students:
        for (assignment, lab), other in wanted.items():
            if (student, assignment, lab) not in there:
                inner = other.path.relative_to(base / other.student)
                found.append(Submission(student, assignment, lab, base / student / inner))
    return sorted(found, key=lambda s: (s.student, s.assignment, s.lab)), notes


def read(path: Path) -> list[NotebookNode]:
    """Read the cells of a stranger's notebook; raises Unreadable. What is no cell is left out."""
    try:
        if path.is_symlink():
            raise Unreadable("it is a link to another file")
        if not path.is_file():
            raise Unreadable("it is not a file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise Unreadable(f"it has {size / 1e6:.0f} MB, and {MAX_BYTES / 1e6:.0f} MB is the limit")
        content = json.loads(path.read_bytes())
    except OSError as problem:
        raise Unreadable(f"it cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError, MemoryError) as problem:
        told = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise Unreadable(f"it is not JSON: {told[:100]}") from problem
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise Unreadable("it is JSON, but no notebook of format 4: it has no list of cells")
    found = [cell for given in cells[:MAX_CELLS] if (cell := _cell(given)) is not None]
    if not found:
        raise Unreadable("it is a notebook without a cell")
    return found


def _cell(given: Any) -> NotebookNode | None:
    """Take of a cell what a cell may have; None for what is no cell."""
    if not isinstance(given, dict) or given.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    source = _text(given.get("source"))
    if source is None or len(source) > MAX_SOURCE:
        return None
    metadata = given.get("metadata")
    marks = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    cell = {"cell_type": given["cell_type"], "id": str(given.get("id", ""))[:64], "source": source}
    cell["metadata"] = {"nbgrader": marks} if isinstance(marks, dict) else {}
    if cell["cell_type"] == "code":
        outputs = given.get("outputs")
        shown = (_shown(output) for output in outputs) if isinstance(outputs, list) else ()
        cell |= {"execution_count": None, "outputs": [output for output in shown if output]}
    return _node(cell)


def _node(content: dict[str, Any]) -> NotebookNode:
    node: NotebookNode = nbformat.from_dict(content)  # type: ignore[no-untyped-call]
    return node


def _text(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else None


def _shown(output: Any) -> dict[str, Any] | None:
    """Keep of an output the text, which the evidence can be asked for."""
    data = output.get("data") if isinstance(output, dict) else None
    text = _text(data.get("text/plain")) if isinstance(data, dict) else None
    if text is None or len(text) > _SHOWN:
        return None
    return {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}}


# --- the notebook that is graded -----------------------------------------------------------------


@dataclass
class Restored:
    """The notebook that is run and marked, and what was found when it was put together."""

    notebook: NotebookNode
    findings: list[Finding] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """The questions whose answer cell is not there."""


def restore(gradable: NotebookNode, released: NotebookNode, handed: Sequence[NotebookNode]) -> Restored:
    """Put the learner's answers and the source's checks together, in the learner's order.

    ``gradable`` is the lab with its hidden tests, ``released`` as it was handed out, ``handed`` the
    cells of `read`. Of a cell that is there twice the first one counts.
    """
    masters = {cell.id: cell for cell in gradable.cells}
    ids = {grade_id(cell): cell.id for cell in gradable.cells if grade_id(cell)}
    given_out = {cell.id: cell.source.strip() for cell in released.cells}
    plain = {c.source.strip(): c.id for c in released.cells if not grade_id(c) and c.source.strip()}
    whole = Restored(_node({**deepcopy(gradable), "cells": []}))
    say = whole.findings.append
    places: dict[str, NotebookNode] = {}
    own = 0

    for cell in handed:
        marked = cell.metadata.get("nbgrader", {}).get("grade_id")
        key = ids.get(marked) if isinstance(marked, str) else None
        key = key or (cell.id if cell.id in masters else plain.get(cell.source.strip()))
        master = masters.get(key) if key else None
        graded = grade_id(master) if master is not None else ""
        if graded and key in places:
            say(
                Finding(
                    _question(graded), f"the cell {graded} is there more than once; the first counts"
                )
            )
            continue
        if master is None or key in places:
            own += 1
            taken = _plain_cell(cell, f"own-{own}")
        elif graded:
            taken = deepcopy(master)
            changed = cell.source.strip() != given_out[key] or cell.cell_type != master.cell_type
            if graded.startswith("check-"):
                if changed:
                    told = f"the check cell {graded} was edited; it was put back as it was handed out"
                    say(Finding(_question(graded), told))
            else:
                if cell.cell_type != master.cell_type:
                    told = f"the answer cell {graded} was made a {cell.cell_type} cell"
                    say(Finding(_question(graded), told))
                taken.source = cell.source
        else:
            taken = _plain_cell(cell, master.id)
            if cell.source.strip() != given_out[key]:
                first = next(iter(given_out[key].splitlines()), "")
                say(Finding(None, f"a given cell was edited, the one that begins with `{first[:60]}`"))
        if key and key not in places:
            places[key] = taken
        whole.notebook.cells.append(taken)

    _put_back(whole, gradable, places)
    originals = {c.id: c.source for c in released.cells}
    checked = [c for c in gradable.cells if grade_id(c).startswith("check-")]
    plain_code = [c for c in released.cells if c.cell_type == "code" and not grade_id(c)]
    theirs = {name for c in checked for name in _names(c.source)[1]}
    theirs &= {name for c in plain_code for name in _names(c.source)[0]}
    for cell in whole.notebook.cells:
        original = originals.get(cell.id, "") if places.get(cell.id) is cell else ""
        changed = cell.source.strip() != original.strip()
        if not changed or cell.cell_type != "code" or grade_id(cell).startswith("check-"):
            continue
        if names := sorted((_names(cell.source)[0] - _names(original)[0]) & theirs):
            graded = grade_id(cell)
            where = f"the cell {graded}" if graded else "a cell of the learner's own"
            told = f"{where} sets {', '.join(names)}, which a check reads and a given cell sets"
            say(Finding(_question(graded) or None, told))
    return whole


def _put_back(whole: Restored, gradable: NotebookNode, places: Mapping[str, NotebookNode]) -> None:
    """Put the checks that are missing, and the answers read by a person, where they stood."""
    cells, last = whole.notebook.cells, None
    gone = 0
    for master in gradable.cells:
        if master.id in places:
            last = places[master.id]
            continue
        graded = grade_id(master)
        if not graded:
            gone += master.cell_type == "code"
            continue
        if graded.startswith("answer-"):
            whole.missing.add(_question(graded))
        if graded.startswith("answer-") and master.cell_type == "code":
            whole.findings.append(Finding(_question(graded), f"the answer cell {graded} is missing"))
            continue
        whole.findings.append(
            Finding(_question(graded), f"the cell {graded} is missing; it was put back")
        )
        at = next((n for n, cell in enumerate(cells) if cell is last), -1)
        last = deepcopy(master)
        cells.insert(at + 1, last)
    if gone:
        whole.findings.append(
            Finding(None, f"{gone} given code cell{'s are' if gone > 1 else ' is'} missing")
        )


def grade_id(cell: NotebookNode) -> str:
    """Return the id of an answer or a check of the source, empty for any other cell."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def _question(graded: str) -> str:
    return graded.partition("-")[2]


def _plain_cell(cell: NotebookNode, cell_id: str) -> NotebookNode:
    """Take a cell without its marks and outputs."""
    taken = {"cell_type": cell.cell_type, "id": cell_id, "source": cell.source, "metadata": {}}
    if cell.cell_type == "code":
        taken |= {"execution_count": None, "outputs": []}
    return _node(taken)


# --- names that are not the learner's to set -------------------------------------------------------


def _names(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell sets, or sets a part of, and those that it reads."""
    lines = (line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    text = "\n".join(lines)
    sets, reads = set(), set()
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for symbol in symtable.symtable(text, "<cell>", "exec").get_symbols():
            if symbol.is_assigned() or symbol.is_imported():
                sets.add(symbol.get_name())
            if symbol.is_referenced():
                reads.add(symbol.get_name())
        sets |= set(_parts_set(ast.parse(text)))
    return sets, reads


def _parts_set(tree: ast.AST) -> Iterator[str]:
    """Find the names a part of which is set: `checks.equals = …`, `table[0] = …`, `setattr(checks)`."""
    for node in ast.walk(tree):
        root: ast.expr | None = None
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            root = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            root = node.args[0] if node.func.id in ("setattr", "vars") and node.args else None
        while isinstance(root, ast.Attribute | ast.Subscript):
            root = root.value
        if isinstance(root, ast.Name):
            yield root.id
