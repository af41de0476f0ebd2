"""Says, before it is handed in, whether a notebook can be graded as it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit import paths, variants
from labkit.errors import UsageError
from labkit.evidence import cells, reader
from labkit.evidence import files as evidence

MAX_NOTEBOOK = 20 * 1024 * 1024  # bytes


@dataclass(frozen=True)
class Remark:
    """One sentence; where it is not `ok`, the notebook cannot be graded as it stands."""

    ok: bool
    sentence: str


def show(notebook: Path | None = None) -> None:
    """Print what `check` finds of a notebook, of the one that runs where none is named."""
    path = notebook or cells.notebook()
    if path is None:
        print("Which notebook? Not every program tells: labkit.submit_check('03_reach_….ipynb')")
        return
    remarks = list(check(path, paths.REPOSITORY / "labs" / "release"))
    for remark in remarks:
        print(f"{'ok' if remark.ok else 'NO':<3} {remark.sentence}")
    if all(remark.ok for remark in remarks):
        print(f"\nIt can be graded. Hand in {path.name} and {evidence.beside(path).name}.")
    else:
        print("\nIt cannot be graded as it stands: mend what is marked NO, then ask again.")


def check(notebook: Path, release: Path) -> Iterator[Remark]:
    """Look at a notebook, as its file was saved, and at the evidence beside it.

    `release` is the directory of the notebooks as they were handed out, by the same names.
    """
    try:
        found = _read(notebook)
    except UsageError as problem:
        yield Remark(False, str(problem.args[0]))
        return
    yield from _notebook(notebook, found, release)
    yield from _evidence(evidence.beside(notebook), found)


def _notebook(path: Path, found: Mapping[str, Any], release: Path) -> Iterator[Remark]:
    size = path.stat().st_size
    saved = datetime.fromtimestamp(path.stat().st_mtime)
    yield Remark(True, f"This is about {path.name} as it was saved on {saved:%Y-%m-%d at %H:%M:%S}.")
    fits = size <= MAX_NOTEBOOK
    limit = (
        "" if fits else f", and {_mb(MAX_NOTEBOOK)} is the limit: clear the output of the largest cell"
    )
    yield Remark(fits, f"The notebook has {_mb(size)}{limit}.")
    original = release / path.name
    if not original.is_file():
        known = ", ".join(sorted(p.name for p in release.glob("*.ipynb"))) or "none"
        yield Remark(False, f"No lab is called {path.name}, so its questions are not known: {known}.")
        return
    wanted, there = _graded(_read(original)), _graded(found)
    missing = [name for name in wanted if name not in there]
    twice = [name for name in wanted if len(there.get(name, ())) > 1]
    yield _cells(not missing, "Every question of the lab is in it.", "These cells are missing", missing)
    yield _cells(
        not twice, "Each of them is there once.", "These cells are there more than once", twice
    )
    empty = [
        name.removeprefix("answer-")
        for name, (source, *_) in wanted.items()
        if name.startswith("answer-") and there.get(name, [""])[0].strip() == source.strip()
    ]
    if empty:
        yield Remark(True, f"Still without an answer, which gives no points: {', '.join(empty)}.")
    code = [cell for cell in found["cells"] if cell["cell_type"] == "code" and cell["source"]]
    if skipped := sum(cell.get("execution_count") is None for cell in code):
        yield Remark(
            True,
            f"{skipped} of {len(code)} code cells show no run; what was not run on the swarm "
            "has no evidence: Restart Kernel and Run All Cells runs every cell.",
        )


def _cells(ok: bool, good: str, bad: str, names: list[str]) -> Remark:
    if ok:
        return Remark(True, good)
    told = f"{bad}: {', '.join(names)}. Take them from a fresh copy of the lab."
    return Remark(False, told)


def _evidence(path: Path, notebook: Mapping[str, Any]) -> Iterator[Remark]:
    if not path.is_file():
        told = "run the notebook on a swarm (labkit up, then Run All)"
        yield Remark(False, f"There is no evidence: {path.name} is not beside the notebook; {told}.")
        return
    try:
        found = reader.read(path)
    except UsageError as problem:
        yield Remark(False, str(problem))
        return
    anew = f"Remove {path.name}, then Restart Kernel and Run All Cells begins it anew."
    if not found.attached:
        yield Remark(False, f"The evidence does not say which lab it is of. {anew}")
    last = datetime.fromtimestamp(found.lines[-1].ended)
    size = _mb(path.stat().st_size)
    told = f"{len(found.lines)} lines, {size}, the last of {last:%Y-%m-%d at %H:%M:%S}"
    yield Remark(True, f"The evidence {path.name} is there: {told}.")
    if found.broken:
        (_, first), *others = found.broken
        more = f", and {len(others)} more places" if others else ""
        yield Remark(False, f"Its chain of hashes is broken: {first}{more}. {anew}")
    else:
        yield Remark(True, "Its chain of hashes is whole.")
    ran = {line.row["cell"]: line.row["source"] for line in found.lines}
    changed = [
        cell["source"].strip().partition("\n")[0]
        for cell in notebook["cells"]
        if ran.get(cell.get("id"), "") not in ("", cells.source_of(cell["source"]))
    ]
    if changed:
        told = "; ".join(f"`{first[:60]}`" for first in changed[:3])
        yield Remark(
            True,
            f"{len(changed)} cells were changed after they were run ({told}): what they ask now may "
            "have no evidence. Restart Kernel and Run All Cells, then save.",
        )
    you = variants.of().learner
    whose = sorted({line.row["learner"] for line in found.lines} - {you})
    if whose:
        told = f"Parts of the evidence are of {', '.join(whose)}, and you are {you}; is that so?"
        yield Remark(True, f"{told} It will be reported. (export LABKIT_LEARNER=… says who you are.)")


def _read(path: Path) -> Mapping[str, Any]:
    import nbformat

    try:
        found: Mapping[str, Any] = cells.once_saved(
            lambda: nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        )
    except (OSError, ValueError, nbformat.ValidationError) as problem:
        first = (str(problem).splitlines() or ["?"])[0]
        raise UsageError(f"{path.name} is no notebook that can be read: {first}") from problem
    return found


def _graded(notebook: Mapping[str, Any]) -> dict[str, list[str]]:
    """The texts of the cells that grading looks for, by grade id."""
    found: dict[str, list[str]] = {}
    for cell in notebook["cells"]:
        marks = cell["metadata"].get("nbgrader", {})
        if marks.get("grade") or marks.get("solution"):
            found.setdefault(str(marks.get("grade_id")), []).append(cell["source"])
    return found


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
