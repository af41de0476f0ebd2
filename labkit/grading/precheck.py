"""Pre-submission check: can this notebook be graded as it stands?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from labkit import paths, variants
from labkit.errors import UsageError
from labkit.evidence import cells, files, reader
from labkit.nbgrader_cells import Role, grade_id_of, question_of, role_of

MAX_NOTEBOOK = 20 * 1024 * 1024  # bytes
_FIRST_CHANGED = 3  # cells that are quoted

_Notebook = Mapping[str, Any]


@dataclass(frozen=True)
class Remark:
    """One sentence; where it is not `ok`, the notebook cannot be graded as it stands."""

    ok: bool
    sentence: str


def show(notebook: Path | None = None) -> None:
    """Print the remarks on a notebook; without one, on the notebook that runs."""
    path = notebook or cells.notebook()
    if path is None:
        unknown = "Which notebook? Not every program tells: labkit.submit_check('03_reach_….ipynb')"
        print(cells.moved() or unknown)
        return
    remarks = list(check(path, paths.RELEASE))
    for remark in remarks:
        print(f"{'ok' if remark.ok else 'NO':<3} {remark.sentence}")
    if all(remark.ok for remark in remarks):
        print(f"\nIt can be graded. Hand in {path.name} and {files.beside(path).name}.")
    else:
        print("\nIt cannot be graded as it stands: mend what is marked NO, then ask again.")


def check(notebook: Path, release: Path) -> Iterator[Remark]:
    """Yield remarks on a notebook, as its file was saved, and on the evidence beside it.

    `release` is the directory of the notebooks as they were handed out, by the same names.
    """
    try:
        content = _read(notebook)
    except UsageError as problem:
        yield Remark(False, str(problem.args[0]))
        return
    yield from _about_file(notebook)
    original = release / notebook.name
    if original.is_file():
        yield from _about_questions(_read(original), content)
        yield from _about_runs(content)
    else:
        known = ", ".join(sorted(p.name for p in release.glob("*.ipynb"))) or "none"
        unknown = f"No lab is called {notebook.name}, so its questions are not known: {known}."
        yield Remark(False, unknown)
    yield from _about_evidence(files.beside(notebook), content)


def _about_file(path: Path) -> Iterator[Remark]:
    size = path.stat().st_size
    saved = datetime.fromtimestamp(path.stat().st_mtime)
    yield Remark(True, f"This is about {path.name} as it was saved on {saved:%Y-%m-%d at %H:%M:%S}.")
    fits = size <= MAX_NOTEBOOK
    advice = f", and {_mb(MAX_NOTEBOOK)} is the limit: clear the output of the largest cell"
    yield Remark(fits, f"The notebook has {_mb(size)}{'' if fits else advice}.")


def _about_questions(original: _Notebook, content: _Notebook) -> Iterator[Remark]:
    expected, found = _cells_by_grade_id(original), _cells_by_grade_id(content)
    missing = [name for name in expected if name not in found]
    twice = [name for name in expected if len(found.get(name, ())) > 1]
    for names, good, bad in (
        (missing, "Every question of the lab is in it.", "These cells are missing"),
        (twice, "Each of them is there once.", "These cells are there more than once"),
    ):
        advice = f"{bad}: {', '.join(names)}. Take them from a fresh copy of the lab."
        yield Remark(not names, advice if names else good)
    unanswered = [
        question_of(cell)
        for name, (cell, *_) in expected.items()
        if role_of(cell).is_answer and name in found and _text(found[name][0]) == _text(cell)
    ]
    if unanswered:
        yield Remark(True, f"Still without an answer, which gives no points: {', '.join(unanswered)}.")


def _about_runs(content: _Notebook) -> Iterator[Remark]:
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code" and cell["source"]]
    if not_run := sum(cell.get("execution_count") is None for cell in code):
        yield Remark(
            True,
            f"{not_run} of {len(code)} code cells show no run; what was not run on the swarm "
            "has no evidence: Restart Kernel and Run All Cells runs every cell.",
        )


def _about_evidence(path: Path, content: _Notebook) -> Iterator[Remark]:
    if not path.is_file():
        advice = "run the notebook on a swarm (labkit up, then Run All)"
        yield Remark(False, f"There is no evidence: {path.name} is not beside the notebook; {advice}.")
        return
    try:
        found = reader.read(path)
    except UsageError as problem:
        yield Remark(False, str(problem))
        return
    advice = f"Remove {path.name}, then Restart Kernel and Run All Cells begins it anew."
    if not found.attached:
        yield Remark(False, f"The evidence does not say which lab it is of. {advice}")
    last = datetime.fromtimestamp(found.lines[-1].ended)
    size = _mb(path.stat().st_size)
    facts = f"{len(found.lines)} lines, {size}, the last of {last:%Y-%m-%d at %H:%M:%S}"
    yield Remark(True, f"The evidence {path.name} is there: {facts}.")
    if found.broken:
        (_, first), *others = found.broken
        more = f", and {len(others)} more places" if others else ""
        yield Remark(False, f"Its chain of hashes is broken: {first}{more}. {advice}")
    else:
        yield Remark(True, "Its chain of hashes is whole.")
    yield from _about_changed_cells(found, content)
    you = variants.of().learner
    learners = sorted({line.row["learner"] for line in found.lines} - {you})
    if learners:
        whose = f"Parts of the evidence are of {', '.join(learners)}, and you are {you}; is that so?"
        yield Remark(True, f"{whose} It will be reported. (export LABKIT_LEARNER=… says who you are.)")


def _about_changed_cells(found: reader.Evidence, content: _Notebook) -> Iterator[Remark]:
    texts_run = {line.row["cell"]: line.row["source"] for line in found.lines}
    changed = [
        cell["source"].strip().partition("\n")[0]
        for cell in content["cells"]
        if texts_run.get(cell.get("id"), "") not in ("", cells.source_of(cell["source"]))
    ]
    if changed:
        quotes = "; ".join(f"`{first[:60]}`" for first in changed[:_FIRST_CHANGED])
        yield Remark(
            True,
            f"{len(changed)} cells were changed after they were run ({quotes}): what they ask now may "
            "have no evidence. Restart Kernel and Run All Cells, then save.",
        )


def _read(path: Path) -> _Notebook:
    import nbformat

    try:
        found: _Notebook = cells.once_saved(
            lambda: nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        )
    except (OSError, ValueError, nbformat.ValidationError) as problem:
        first = (str(problem).splitlines() or ["?"])[0]
        raise UsageError(f"{path.name} is no notebook that can be read: {first}") from problem
    return found


def _cells_by_grade_id(notebook: _Notebook) -> dict[str, list[Mapping[str, Any]]]:
    """Return the cells that grading looks for, by grade id; a cell may be there more than once."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for cell in notebook["cells"]:
        if role_of(cell) is not Role.GIVEN:
            found.setdefault(grade_id_of(cell), []).append(cell)
    return found


def _text(cell: Mapping[str, Any]) -> str:
    return str(cell["source"]).strip()


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
