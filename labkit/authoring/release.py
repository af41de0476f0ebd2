"""Build the learners' notebooks from the labs' MyST sources, one way only.

`labkit.authoring.markup` describes how an author marks a source. The metadata is nbgrader's
(`labkit.nbgrader_cells`), and nbgrader's own preprocessors clear and lock, so that its commands work on
what `nbgrader_source` and `build` return.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import files, nbgrader_cells
from labkit.authoring import markup, seen
from labkit.authoring.markup import MarkupError, Place
from labkit.authoring.names import names_in
from labkit.errors import UnknownNameError
from labkit.nbgrader_cells import Role, grade_id_of, question_of, role_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

_LAB_NAME = re.compile(r"\d\d_[a-z0-9_]+")
_HEADING = re.compile(r"^# +(.+?) *$", re.MULTILINE)
TEXT_STUB = "*Write your answer here.*"


def find_labs(source_dir: Path, names: Iterable[str] = ()) -> list[Path]:
    """Find labs by number, by name without it or by both; all of them where none is named.

    Returns them in the order of their numbers, each one once. Raises UnknownNameError.
    """
    labs = [p for p in sorted(source_dir.glob("*.md")) if _LAB_NAME.fullmatch(p.stem)]
    wanted = set()
    for name in names:
        found = [p for p in labs if name in (p.stem, p.stem[3:]) or name.zfill(2) == p.stem[:2]]
        if not found:
            raise UnknownNameError("lab", name, [p.stem for p in labs])
        wanted.update(found)
    return [p for p in labs if p in wanted] if wanted else labs


def read_source(path: Path) -> NotebookNode:
    """Read a lab's source as a notebook, with its solutions, hidden tests and guards.

    Raises MarkupError.
    """
    if not _LAB_NAME.fullmatch(path.stem):
        raise MarkupError(path, 1, "a lab's file is called NN_verb_noun.md")
    text = path.read_text(encoding="utf-8")
    notebook = _parse(path, text)
    whole = Place(path, text.splitlines(), 0, len(text.splitlines()))
    notes = _take_notes(notebook, whole)
    places = _mark_cells(notebook, path, text.splitlines())
    _require_questions(notes, notebook, whole)
    _require_checks(notebook, places)
    _require_own_names(notebook, places)
    # Also drops what jupytext would keep for pairing, which would bring the answers back.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "labkit": {"hints": notes.hints, "rubrics": notes.rubrics},
    }
    if not title(notebook):
        raise MarkupError(path, 1, "the lab has no title; write one as `# Verb a noun`")
    return notebook


def build(path: Path) -> str:
    """Build a lab's release, the text of its .ipynb; the same source gives the same bytes.

    Raises MarkupError.
    """
    import nbformat
    from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ComputeChecksums

    notebook = gradable(path)
    for step in (ClearHiddenTests, ComputeChecksums, CheckCellMetadata):
        step().preprocess(notebook, {})
    return str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]


def gradable(path: Path) -> NotebookNode:
    """Read a lab's source as it is graded: the release, with its hidden tests; raises MarkupError."""
    from nbgrader.preprocessors import ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    notebook = nbgrader_source(path)
    for index, cell in enumerate(notebook.cells):
        role = role_of(cell)
        if role.is_answer:
            stub = markup.stub(markup.solution(cell)) if role is Role.ANSWER else ""
            clear = ClearSolutions(code_stub={"python": stub}, text_stub=TEXT_STUB)
            clear.preprocess_cell(cell, {"language": "python"}, index)
    # nbgrader's own order, of `generate_assignment`.
    for step in (LockCells, ClearOutput, ComputeChecksums):
        step().preprocess(notebook, {})
    return notebook


def nbgrader_source(path: Path) -> NotebookNode:
    """Read a lab's source as nbgrader wants it: with its solutions, without what only the kit uses.

    Raises MarkupError.
    """
    notebook = read_source(path)
    notebook.metadata["labkit"] = {"hints": notebook.metadata["labkit"]["hints"]}
    if not notebook.metadata["labkit"]["hints"]:
        del notebook.metadata["labkit"]
    notebook.cells = [c for c in notebook.cells if not markup.GUARD_TAGS & set(c.metadata["tags"])]
    for cell in notebook.cells:
        cell.metadata.pop("labkit", None)
        if cell.cell_type == "markdown":
            cell.source = markup.CLAIM_NOTE.sub(lambda m: seen.mark(m[1].split()), cell.source)
        if not cell.metadata["tags"]:
            del cell.metadata["tags"]
    return notebook


def release(source_dir: Path, release_dir: Path) -> list[Path]:
    """Build the releases of all labs, or of none where one cannot be built; returns their paths.

    Raises MarkupError.
    """
    texts = {release_dir / f"{path.stem}.ipynb": build(path) for path in find_labs(source_dir)}
    for target, text in texts.items():
        files.write_text(target, text)
    return list(texts)


def stale(source_dir: Path, release_dir: Path) -> list[Path]:
    """List the released notebooks that differ from their source, are missing or have none."""
    texts = {release_dir / f"{path.stem}.ipynb": build(path) for path in find_labs(source_dir)}
    released = {path: path.read_text(encoding="utf-8") for path in release_dir.glob("*.ipynb")}
    return sorted(path for path in texts | released if texts.get(path) != released.get(path))


def title(notebook: NotebookNode) -> str:
    """Return the first first-level heading, or an empty text."""
    headings = (_HEADING.search(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    return next((str(heading[1]) for heading in headings if heading), "")


def _parse(path: Path, text: str) -> NotebookNode:
    """Turn MyST into a notebook; raises MarkupError where jupytext cannot."""
    from jupytext.myst import MystMetadataParsingError, myst_to_notebook
    from nbformat import ValidationError

    try:
        notebook: NotebookNode = myst_to_notebook(text, add_source_map=True)
    except MystMetadataParsingError as error:
        at = re.search(r"at line (\d+) could not be read", str(error))
        raise MarkupError(path, int(at[1]) if at else 1, str(error)) from error
    except ValidationError as error:  # nbformat's, of the only metadata that it has rules for
        problem = "tags are a list of words, without a space after a colon: [check:ID, points:N]"
        raise MarkupError(path, _line_of_bad_tags(text.splitlines()), problem) from error
    return notebook


def _take_notes(notebook: NotebookNode, whole: Place) -> markup.Notes:
    """Take hints and rubrics out of the Markdown, with the cells that held nothing else."""
    notes = markup.Notes()
    kept, starts = [], []
    for cell, start in zip(notebook.cells, notebook.metadata["source_map"], strict=True):
        if cell.cell_type == "markdown":
            before = cell.source
            cell.source = notes.take(before, replace(whole, head=max(start - 1, 0)))
            if before and not cell.source:
                continue
        kept.append(cell)
        starts.append(start)
    notebook.cells, notebook.metadata["source_map"] = kept, starts
    return notes


def _require_questions(notes: markup.Notes, notebook: NotebookNode, whole: Place) -> None:
    """Refuse hints for what is no check, and a rubric that does not fit its answer's points."""
    points = {grade_id_of(cell): nbgrader_cells.points_of(cell) for cell in notebook.cells}
    for question in notes.hints:
        if nbgrader_cells.grade_id(Role.CHECK, question) not in points:
            problem = f"there is no check:{question} to give hints for"
            raise whole.error_in_head(f"hints: {question}", problem)
    for question, rubric in notes.rubrics.items():
        most = points.get(nbgrader_cells.grade_id(Role.TEXT_ANSWER, question), 0.0)
        given = sum(one["points"] for one in rubric)
        if given != most:
            problem = f"the rubric's points add up to {given:g}; its answer in words has {most:g}"
            raise whole.error_in_head(f"rubric: {question}", problem)


def _mark_cells(notebook: NotebookNode, path: Path, lines: list[str]) -> dict[str, Place]:
    """Give each cell its metadata and its id; returns the places of answers and checks, by grade id."""
    places: dict[str, Place] = {}
    starts = notebook.metadata["source_map"]
    for position, (cell, start) in enumerate(zip(notebook.cells, starts, strict=True)):
        place = markup.place_of(path, lines, max(start - 1, 0), cell.source)
        markup.mark(cell, place)
        grade_id = grade_id_of(cell)
        if grade_id in places:
            tag, line = grade_id.replace("-", ":"), places[grade_id].head + 1
            problem = f"the id {tag} is already that of the cell in line {line}"
            raise place.error_in_head(tag, problem)
        if grade_id:
            places[grade_id] = place
        markup.check_regions(cell, place)
        cell.id = f"{path.stem[:2]}-{grade_id or f'{position:02d}'}"
    return places


def _require_checks(notebook: NotebookNode, places: dict[str, Place]) -> None:
    """Refuse an answer in code that no check below it judges."""
    for cell in notebook.cells:
        if role_of(cell) is not Role.ANSWER:
            continue
        name, answer = question_of(cell), places[grade_id_of(cell)]
        check = places.get(nbgrader_cells.grade_id(Role.CHECK, name))
        if check is None:
            problem = f"answer:{name} has no check; mark one with check:{name} and points"
            raise answer.error_in_head(f"answer:{name}", problem)
        if check.head < answer.head:
            problem = f"check:{name} stands above answer:{name}, which it judges"
            raise check.error_in_head(f"check:{name}", problem)


def _require_own_names(notebook: NotebookNode, places: dict[str, Place]) -> None:
    """Refuse an answer that sets a name which another cell sets too.

    Marking takes an answer's names from the learner, and all others it makes anew.
    """
    others: set[str] = set()
    for cell in notebook.cells:
        if cell.cell_type == "code" and not role_of(cell).is_answer:
            others |= names_in(cell.source)[0]
    for cell in notebook.cells:
        if role_of(cell) is Role.ANSWER:
            shared = sorted(names_in(markup.stub(markup.solution(cell)))[0] & others)
            if shared:
                name = question_of(cell)
                problem = f"answer:{name} sets {', '.join(shared)}, which another cell sets too"
                raise places[grade_id_of(cell)].error_in_head(f"answer:{name}", problem)


def _line_of_bad_tags(lines: list[str]) -> int:
    """Find the first line, from 1, whose tags are not a list of words."""
    import yaml

    for number, line in enumerate(lines, 1):
        if re.match(r":?tags:|\+\+\+ *\{", line):
            tags = yaml.safe_load(line.lstrip(":+ ")).get("tags", [])
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                return number
    return 1
