"""Hand in one learner's answers on another learner's swarm: in every lab some check must fail.

copied_answers.py FIRST SECOND [LAB…], two directories of evidence of two learners (labkit run
--evidence). Each lab is replayed twice: first as the first learner, to collect the answers, then as the
second one, with those answers in the place of the solutions.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from pathlib import Path

import nbformat

from labkit import paths
from labkit.authoring import release, runner
from labkit.nbgrader_cells import Role, grade_id_of, role_of
from labkit.outcomes import Outcome

_MARK = "copied-answer "


def answers(path: Path, recorded: Path, workdir: Path) -> dict[str, dict[str, object]]:
    """Run a lab with its solutions; returns the values of every answer cell, by grade id."""
    notebook = release.read_source(path)
    for cell in notebook.cells:
        if role_of(cell) is not Role.ANSWER:
            continue
        names = [target.id for node in ast.parse(cell.source).body for target in targets(node)]
        values = f"{{n: globals()[n] for n in {names}}}.items()"
        plain = f"{{n: v.item() if hasattr(v, 'item') else v for n, v in {values}}}"
        cell.source += f"\nprint({_MARK!r} + repr({plain}))"
    run(notebook, path.stem, recorded, workdir)
    done = nbformat.read(workdir / f"{path.stem}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    found = {}
    for cell in done.cells:
        for line in "".join(o.get("text", "") for o in cell.get("outputs", ())).splitlines():
            if line.startswith(_MARK):
                plain = line.removeprefix(_MARK)
                found[grade_id_of(cell)] = ast.literal_eval(plain)
    return found


def targets(node: ast.stmt) -> list[ast.Name]:
    """The names that a statement assigns for a check to read; a solution's own helpers begin with _."""
    found = node.targets if isinstance(node, ast.Assign) else []
    return [t for t in found if isinstance(t, ast.Name) and not t.id.startswith("_")]


def run(notebook: nbformat.NotebookNode, lab: str, recorded: Path, workdir: Path) -> runner.LabResult:
    """Replay a notebook."""
    source = workdir / "built" / f"{lab}.ipynb"
    source.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, source)  # type: ignore[no-untyped-call]
    (result,) = runner.run_labs([source], workdir=workdir, env={}, timeout=300, replay=recorded)
    return result


def copied(path: Path, first: Path, second: Path) -> list[str]:
    """Return the checks that the second learner fails with the first one's answers."""
    with tempfile.TemporaryDirectory() as directory:
        taken = answers(path, first, Path(directory))
        notebook = release.read_source(path)
        # The guards of the source are about the swarm, not about the answers.
        notebook.cells = [c for c in notebook.cells if "remove-cell" not in c.metadata.get("tags", ())]
        for cell in notebook.cells:
            if role_of(cell) is Role.ANSWER:
                values = taken[grade_id_of(cell)]
                cell.source = "\n".join(f"{name} = {value!r}" for name, value in values.items())
        result = run(notebook, path.stem, second, Path(directory))
    return [check.id for check in result.checks if check.status == Outcome.FAIL]


def main() -> int:
    """Run the labs; returns the number of those that took copied answers."""
    first, second, *labs = sys.argv[1:]
    taken = 0
    for path in release.find_labs(paths.SOURCES, labs):
        failed = copied(path, Path(first), Path(second))
        taken += not failed
        print(f"{path.stem}: {', '.join(failed) or 'NO CHECK'} failed", flush=True)
    return taken


if __name__ == "__main__":
    sys.exit(main())
