"""Find submissions and read them safely.

A submission is a stranger's file: only a plain file is opened, sizes are limited, and of a notebook
only the parts that grading needs are taken.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from labkit import variants
from labkit.errors import LabkitError, UsageError
from labkit.evidence import files
from labkit.grading.texts import visible

if TYPE_CHECKING:
    from nbformat import NotebookNode

MAX_BYTES = 512 * 1024 * 1024  # of a notebook's file; most of a large one is output, which is dropped
MAX_SOURCE = 1_000_000  # characters of one cell
MAX_CELLS = 5000
_MAX_OUTPUT = 100_000  # characters of a text output that is looked up in the evidence
_MAX_OUTPUTS = 1000  # of one cell
_MAX_NAME = 200  # characters of a grade id
_ASSIGNMENT = re.compile(r"\w[\w .@+-]{0,99}")
# As browsers and JupyterLab name a second copy: LAB (1).ipynb, LAB-Copy1.ipynb.
_COPY = re.compile(r"(.+?)(?: ?\((\d{1,3})\)|-Copy(\d{0,3}))")
# What follows a lab's name in its evidence's: packed or not, also as browsers name a second download.
_EVIDENCE = tuple(
    f"{stem}{packed}"
    for stem in (files.SUFFIX, *(f".evidence ({number}).jsonl" for number in range(9, 0, -1)))
    for packed in ("", ".gz")
)
_NO_LEARNERS = {"__MACOSX", ".ipynb_checkpoints", ".git"}
_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character: no file and no message can hold it
# What nbgrader knows of a cell, and of which types.
_NBGRADER: dict[str, type | tuple[type, ...]] = {
    "grade": bool,
    "solution": bool,
    "locked": bool,
    "task": bool,
    "points": (int, float),
    "schema_version": int,
    "cell_type": str,
    "grade_id": str,
}


class UnreadableError(LabkitError):
    """A submission cannot be read as a notebook; its text says what it is instead."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner; ``path`` does not exist where nothing was handed in."""

    student: str
    assignment: str  # as nbgrader calls it: a folder with one notebook or more
    lab: str
    path: Path
    remarks: tuple[str, ...] = ()  # what was odd about its files: findings for a person
    refused: str = ""  # why it is not marked at all

    @property
    def evidence(self) -> Path | None:
        """The evidence beside the notebook, packed or not; None where there is none."""
        found = (path for path in self.evidence_names() if path.is_file() and not path.is_symlink())
        return next(found, None)

    def evidence_names(self) -> list[Path]:
        """Where the evidence may lie; also as browsers name what is downloaded a second time."""
        own = files.beside(self.path)
        named = [own, Path(f"{own}.gz")]
        named += [self.path.with_name(f"{self.lab}{ending}") for ending in _EVIDENCE]
        return list(dict.fromkeys(named))


def is_taken(name: str) -> bool:
    """Whether a submission's notebook, evidence or signature may have this name."""
    return name.lower().endswith((".ipynb", *_EVIDENCE, files.SIGNATURE_SUFFIX))


# --- find ----------------------------------------------------------------------------------------


def find(
    directory: Path,
    labs: Iterable[str],
    leave_out: Iterable[Path] = (),
    roster: Mapping[str, str] | None = None,
) -> tuple[list[Submission], list[str]]:
    """Find submissions as DIR/STUDENT/LAB.ipynb or in nbgrader's submitted/STUDENT/ASSIGNMENT/.

    Returns them by learner, and one sentence for each thing that was passed over. A learner without a
    notebook that others handed in gets a submission whose file does not exist. ``leave_out`` are
    folders that are no learner's; ``roster`` has the learner's id for a folder's name, as `visible`
    shows it. What lies in a folder that is no learner's id is a submission that says why it is refused.
    Raises UsageError where there is no submission.
    """
    base = directory / "submitted" if (directory / "submitted").is_dir() else directory
    nested = base.resolve().name == "submitted"
    known, roster = sorted(labs), roster or {}
    found: list[Submission] = []
    notes: list[str] = []
    folders: dict[str, Path] = {}  # of each learner
    for folder in _folders(base, directory, leave_out, notes):
        student, refused = _whose(folder, roster, folders)
        try:
            handed_in = list(_in_folder(folder, known, student, nested, notes))
        except OSError as problem:
            notes.append(f"{visible(str(folder))} cannot be read: {problem.strerror}")
            continue
        if refused:
            found += [replace(s, student=visible(folder.name), refused=refused) for s in handed_in]
            if not handed_in and not _is_hidden(folder):
                notes.append(f"{visible(str(folder))}: nothing in it was graded: {refused}")
        else:
            folders[student] = folder
            found += handed_in
    if not found:
        raise UsageError(
            f"{base} holds no submission: no STUDENT/NOTEBOOK.ipynb with the name of a lab",
            hint=f"the labs are {', '.join(known) or 'none'}",
        )
    for student in set(roster.values()) - folders.keys():
        folders[student] = base / student
    found += _not_handed_in(base, folders, found)
    return sorted(found, key=lambda s: (s.student, s.assignment, s.lab)), notes


def _folders(
    base: Path, directory: Path, leave_out: Iterable[Path], notes: list[str]
) -> Iterator[Path]:
    """Yield what may be learners' folders; raises UsageError where they cannot be listed."""
    others = {path.resolve() for path in leave_out}
    try:
        found = sorted(base.iterdir())
    except OSError as problem:
        raise UsageError(
            f"{directory} cannot be read: {problem.strerror}",
            hint="labkit grade DIR, with DIR/STUDENT/NOTEBOOK.ipynb in it",
        ) from problem
    for path in found:
        if path.is_symlink():
            notes.append(f"{visible(str(path))} is a link; nothing in it was graded")
        elif path.is_dir():
            if path.name not in _NO_LEARNERS and path.resolve() not in others:
                yield path
        elif path.suffix.lower() in (".ipynb", ".zip"):
            notes.append(f"{visible(str(path))} lies in no learner's folder and was not graded")


def _whose(folder: Path, roster: Mapping[str, str], folders: Mapping[str, Path]) -> tuple[str, str]:
    """Return whose a folder is, and why nothing in it can be marked; that is empty where it can."""
    name = visible(unicodedata.normalize("NFC", folder.name))
    student = roster.get(name, folder.name)
    try:
        variants.of(student)
    except UsageError:
        why = f"{name!r} is the name of its folder and no learner's id"
        return student, f"{why}; a roster can say whose it is: --roster FILE.csv"
    if student in folders:
        return student, f"{student} has another folder too, {visible(folders[student].name)}"
    return student, ""


def _is_hidden(path: Path) -> bool:
    return path.name.startswith((".", "_"))


def _in_folder(
    folder: Path, labs: Sequence[str], student: str, nested: bool, notes: list[str]
) -> Iterator[Submission]:
    """Yield the submissions in a learner's folder; notes get a sentence for each other notebook."""
    direct = _by_lab(folder, labs, notes)
    for lab, paths in direct.items():
        yield _submission(student, lab, lab, paths)
    deeper: dict[str, list[list[Path]]] = {}
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if inner.name in _NO_LEARNERS:
            continue
        if inner.is_symlink():
            notes.append(f"{visible(str(inner))} is a link; nothing in it was graded")
            continue
        for lab, paths in _by_lab(inner, labs, notes).items():
            if not nested:
                deeper.setdefault(lab, []).append(paths)
            elif _ASSIGNMENT.fullmatch(inner.name):
                yield _submission(student, inner.name, lab, paths)
            else:
                notes.append(f"{visible(str(inner))}: its name cannot be an assignment's")
    for lab, places in deeper.items():
        (first, *_), *others = places
        if lab in direct or others:
            where = ", ".join(visible(str(paths[0].parent.name)) for paths in places)
            notes.append(
                f"{visible(str(folder))}: {lab} in {where} was not graded: what counts lies in the "
                "learner's own folder"
            )
        else:
            remark = f"it lay in the folder {visible(first.parent.name)} of the learner's folder"
            yield _submission(student, lab, lab, places[0], remark)


def _by_lab(folder: Path, labs: Sequence[str], notes: list[str]) -> dict[str, list[Path]]:
    """Return the notebooks of each lab; the one that counts is the first: of copies the latest."""
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".ipynb":
            continue
        copy = _COPY.fullmatch(path.stem)
        if path.stem in labs and path.suffix == ".ipynb":
            found.setdefault(path.stem, []).append((-1000, path))
        elif copy and copy[1] in labs:
            found.setdefault(copy[1], []).append((-int(copy[2] or copy[3] or 0), path))
        elif not path.name.startswith("."):
            notes.append(f"{visible(str(path))}: no lab is called {visible(path.stem)}")
    return {lab: [path for _, path in sorted(paths)] for lab, paths in found.items()}


def _submission(
    student: str, assignment: str, lab: str, paths: Sequence[Path], *remarks: str
) -> Submission:
    """Return the submission of the first of these notebooks, with remarks on what is odd."""
    first, *others = paths
    told = list(remarks)
    if first.stem != lab:
        told.append(f"{visible(first.name)} was taken for {lab}.ipynb, which is not there")
    if others:
        names = ", ".join(visible(path.name) for path in others[:5])
        told.append(f"{names} lay beside {visible(first.name)} and was not marked")
    submission = Submission(student, assignment, lab, first)
    for path in (first, *submission.evidence_names()):
        told += _oddities(path)
    return replace(submission, remarks=tuple(f"{sentence}." for sentence in told))


def _oddities(path: Path) -> Iterator[str]:
    """Say what makes a file other than a plain one of a single name."""
    try:
        if kind := files.odd_kind(path):
            yield f"{visible(path.name)} is {kind} and was not read"
        elif (names := path.lstat().st_nlink) > 1:
            yield f"{visible(path.name)} has {names} names on this disk: it is a hard link"
    except OSError:  # it is not there
        return


def _not_handed_in(
    base: Path, folders: Mapping[str, Path], found: Sequence[Submission]
) -> Iterator[Submission]:
    """Yield what others handed in and a learner did not, with the path where it would lie."""
    handed_in = {(s.student, s.assignment, s.lab) for s in found if not s.refused}
    examples = {(s.assignment, s.lab): s for s in found}
    for student, folder in folders.items():
        for (assignment, lab), example in examples.items():
            if (student, assignment, lab) in handed_in:
                continue
            inner = Path(assignment) if example.path.parent.name == assignment else Path()
            path = folder / inner / f"{lab}.ipynb"
            yield Submission(student, assignment, lab, path, remarks=tuple(_instead(path.parent)))


def _instead(folder: Path) -> Iterator[str]:
    """Say what lies where a notebook should."""
    if folder.is_dir() and (names := sorted(path.name for path in folder.iterdir())):
        shown = ", ".join(visible(name, 60) for name in names[:5])
        yield f"its folder holds {shown}{' and more' if len(names) > 5 else ''}."


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
        if kind := files.odd_kind(path):
            raise UnreadableError(f"it is {kind}")
        with files.open_plain(path) as file:
            if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                limit = f"{MAX_BYTES / 1e6:.0f} MB is the limit"
                raise UnreadableError(f"it has {size / 1e6:.0f} MB, and {limit}")
            return json.loads(file.read(size))
    except UsageError as problem:
        raise UnreadableError("it is not a plain file") from problem
    except OSError as problem:
        raise UnreadableError(f"it cannot be read: {problem.strerror}") from problem
    except (ValueError, RecursionError, MemoryError) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise UnreadableError(f"it is not JSON: {reason[:100]}") from problem


def _cell(raw: Any) -> NotebookNode | None:
    """Take from a cell what grading needs; None for what is no cell."""
    if not isinstance(raw, dict) or raw.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    source = _text(raw.get("source"), MAX_SOURCE)
    if source is None:
        return None
    name = raw.get("id")
    cell = {
        "cell_type": raw["cell_type"],
        "id": _whole(name[:64]) if isinstance(name, str) else "",
        "source": source,
        "metadata": _metadata(raw.get("metadata")),
    }
    if cell["cell_type"] == "code":
        outputs = raw.get("outputs")
        shown = map(_text_output, outputs[:_MAX_OUTPUTS]) if isinstance(outputs, list) else ()
        cell |= {"execution_count": None, "outputs": [output for output in shown if output]}
    node: NotebookNode = nbformat.from_dict(cell)  # type: ignore[no-untyped-call]
    return node


def _metadata(raw: Any) -> dict[str, Any]:
    """Take from a cell's metadata what nbgrader put there; nothing where its grade id is none."""
    nbgrader = raw.get("nbgrader") if isinstance(raw, dict) else None
    if not isinstance(nbgrader, dict):
        return {}
    kept = {key: nbgrader.get(key) for key in _NBGRADER}
    known = {key: value for key, value in kept.items() if isinstance(value, _NBGRADER[key])}
    grade_id = str(known.get("grade_id", ""))
    if len(grade_id) > _MAX_NAME or not grade_id.isprintable():
        return {}
    return {"nbgrader": known}


def _text(value: Any, longest: int) -> str | None:
    """Join the lines of a text; None for what is none, or longer than is kept."""
    if isinstance(value, str):
        return _whole(value) if len(value) <= longest else None
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        return None
    return _whole("".join(value)) if sum(map(len, value)) <= longest else None


def _whole(text: str) -> str:
    """Put the replacement character for each half of a character."""
    return _SURROGATE.sub("\ufffd", text)


def _text_output(output: Any) -> dict[str, Any] | None:
    """Take from an output its text, which is looked up in the evidence."""
    data = output.get("data") if isinstance(output, dict) else None
    text = _text(data.get("text/plain"), _MAX_OUTPUT) if isinstance(data, dict) else None
    if text is None:
        return None
    return {"output_type": "display_data", "metadata": {}, "data": {"text/plain": text}}
