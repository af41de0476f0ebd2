"""Find submissions and read them safely.

A submission is a stranger's file: links are not followed, sizes are limited, and of a notebook only the
parts that grading needs are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from labkit.errors import LabkitError, UsageError
from labkit.evidence import files

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_BYTES = 512 * 1024 * 1024  # of a notebook's file; most of a large one is output, which is dropped
MAX_SOURCE = 1_000_000  # characters of one cell
MAX_CELLS = 5000
_MAX_OUTPUT = 100_000  # characters of a text output that is looked up in the evidence


class UnreadableError(LabkitError):
    """A submission cannot be read as a notebook; its text says what it is instead."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner; ``path`` does not exist where nothing was handed in."""

    student: str
    assignment: str  # as nbgrader calls it: a folder with one notebook or more
    lab: str
    path: Path

    @property
    def evidence(self) -> Path | None:
        """The evidence beside the notebook, packed or not; None where there is none."""
        found = [files.beside(self.path), Path(f"{files.beside(self.path)}.gz")]
        return next((path for path in found if path.is_file() and not path.is_symlink()), None)


# --- find ----------------------------------------------------------------------------------------


def find(
    directory: Path, labs: Iterable[str], leave_out: Iterable[Path] = ()
) -> tuple[list[Submission], list[str]]:
    """Find submissions as DIR/STUDENT/NOTEBOOK.ipynb or in nbgrader's submitted/STUDENT/ASSIGNMENT/.

    Returns them by learner, and one sentence for each thing that was passed over. A learner without a
    notebook that others handed in gets a submission whose file does not exist. ``leave_out`` are
    folders that are no learner's. Raises UsageError where there is no submission.
    """
    base = directory / "submitted" if (directory / "submitted").is_dir() else directory
    known = sorted(labs)
    found: list[Submission] = []
    notes: list[str] = []
    students = []
    for folder in _learners_folders(base, directory, leave_out):
        if folder.is_symlink():
            notes.append(f"{folder} is a link; nothing in it was graded")
            continue
        students.append(folder.name)
        for item in _in_folder(folder, known):
            if isinstance(item, Submission):
                found.append(item)
            else:
                notes.append(item)
    if not found:
        raise UsageError(
            f"{base} holds no submission: no STUDENT/NOTEBOOK.ipynb with the name of a lab",
            hint=f"the labs are {', '.join(known) or 'none'}",
        )
    found += _not_handed_in(base, students, found)
    return sorted(found, key=lambda s: (s.student, s.assignment, s.lab)), notes


def _learners_folders(base: Path, directory: Path, leave_out: Iterable[Path]) -> list[Path]:
    """Return the folders of learners; raises UsageError where they cannot be listed."""
    others = {path.resolve() for path in leave_out}
    try:
        folders = [p for p in sorted(base.iterdir()) if not p.name.startswith((".", "_"))]
    except OSError as problem:
        raise UsageError(
            f"{directory} cannot be read: {problem.strerror}",
            hint="labkit grade DIR, with DIR/STUDENT/NOTEBOOK.ipynb in it",
        ) from problem
    return [p for p in folders if p.is_dir() and p.resolve() not in others]


def _in_folder(folder: Path, labs: Iterable[str]) -> Iterator[Submission | str]:
    """Yield the submissions in a learner's folder, and a sentence for each notebook that is none."""
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("*/*.ipynb")]):
        if path.stem in labs and path.parent.is_symlink():
            yield f"{path.parent} is a link; nothing in it was graded"
        elif path.stem in labs:
            assignment = path.stem if path.parent == folder else path.parent.name
            yield Submission(folder.name, assignment, path.stem, path)
        elif not path.name.startswith("."):
            yield f"{path}: no lab is called {path.stem}"


def _not_handed_in(
    base: Path, students: Iterable[str], found: Iterable[Submission]
) -> Iterator[Submission]:
    """Yield what others handed in and a learner did not, with the path where it would lie."""
    handed_in = {(s.student, s.assignment, s.lab) for s in found}
    examples = {(s.assignment, s.lab): s for s in found}
    for student in students:
        for (assignment, lab), example in examples.items():
            if (student, assignment, lab) not in handed_in:
                inner = example.path.relative_to(base / example.student)
                yield Submission(student, assignment, lab, base / student / inner)


# --- read ----------------------------------------------------------------------------------------


def read(path: Path) -> list[NotebookNode]:
    """Read the cells of a submission; what is no cell is left out.

    Raises UnreadableError where it is no notebook.
    """
    content = _load(path)
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise UnreadableError("it is JSON, but no notebook of format 4: it has no list of cells")
    found = [cell for raw in cells[:MAX_CELLS] if (cell := _cell(raw)) is not None]
    if not found:
        raise UnreadableError("it is a notebook without a cell")
    return found


def _load(path: Path) -> Any:
    """Read a file's JSON; raises UnreadableError."""
    try:
        if path.is_symlink():
            raise UnreadableError("it is a link to another file")
        if not path.is_file():
            raise UnreadableError("it is not a file")
        if (size := path.stat().st_size) > MAX_BYTES:
            limit = f"{MAX_BYTES / 1e6:.0f} MB is the limit"
            raise UnreadableError(f"it has {size / 1e6:.0f} MB, and {limit}")
        return json.loads(path.read_bytes())
    except OSError as problem:
        raise UnreadableError(f"it cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError, MemoryError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UnreadableError(f"it is not JSON: {reason[:100]}") from problem


def _cell(raw: Any) -> NotebookNode | None:
    """Take from a cell what grading needs; None for what is no cell."""
    if not isinstance(raw, dict) or raw.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    source = _text(raw.get("source"))
    if source is None or len(source) > MAX_SOURCE:
        return None
    metadata = raw.get("metadata")
    nbgrader = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    cell = {"cell_type": raw["cell_type"], "id": str(raw.get("id", ""))[:64], "source": source}
    cell["metadata"] = {"nbgrader": nbgrader} if isinstance(nbgrader, dict) else {}
    if cell["cell_type"] == "code":
        outputs = raw.get("outputs")
        shown = (_text_output(output) for output in outputs) if isinstance(outputs, list) else ()
        cell |= {"execution_count": None, "outputs": [output for output in shown if output]}
    node: NotebookNode = nbformat.from_dict(cell)  # type: ignore[no-untyped-call]
    return node


def _text(value: Any) -> str | None:
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else None


def _text_output(output: Any) -> dict[str, Any] | None:
    """Take from an output its text, which is looked up in the evidence."""
    data = output.get("data") if isinstance(output, dict) else None
    text = _text(data.get("text/plain")) if isinstance(data, dict) else None
    if text is None or len(text) > _MAX_OUTPUT:
        return None
    return {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}}
