"""Build the learners' notebooks from the labs' MyST sources, one way only.

An author marks cells with tags and nothing else:

    answer:ID                 a code cell with the learner's answer; a check of the same ID follows
    answer:ID, points:N       the same in Markdown, marked by hand: `+++ {"tags": [...]}` above it
    check:ID, points:N        a code cell that judges the answer, or the state of the swarm
    remove-cell, test         a guard for a number in the prose; only the source has it
    claim:ID                  beside check:ID or remove-cell: the cell proves this claim of the ledger
    raises-exception          a cell that is meant to end in an error

A Markdown paragraph that states a fact ends with `<!-- claim: ID -->`, which the release has not.

A solution stands between `### BEGIN SOLUTION` and `### END SOLUTION`, once in every answer cell.
The release has `name = ...` there, for each name that the solution assigns, so that Run All goes
on. Hidden tests stand between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS` in check cells.

The metadata written is nbgrader's (schema 3), and nbgrader's own preprocessors clear and lock, so
that its commands work on what `read_source` and `build` return.
"""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from labkit.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from nbformat import NotebookNode

_LAB_NAME = re.compile(r"\d\d_[a-z0-9_]+")
_TAG = re.compile(r"(answer|check):([a-z][a-z0-9_]{0,39})|points:(\d+(?:\.\d+)?)")
_GUARD_TAGS = {"remove-cell", "test"}
_PLAIN_TAGS = {*_GUARD_TAGS, "raises-exception"}
_CLAIM_TAG = re.compile(r"claim:([a-z0-9][a-z0-9-]*)")
CLAIM_NOTE = re.compile(r"\s*<!-- claim: ([a-z0-9 -]+?) -->")
_MARKER = re.compile(r"\b(BEGIN|END) (SOLUTION|HIDDEN TESTS)\b")
_ALMOST = re.compile(r"\b(BEGIN|END)[\s_-]*(SOLUTION|HIDDEN[\s_-]*TEST)", re.IGNORECASE)
_REGION_OF = {"SOLUTION": "answer", "HIDDEN TESTS": "check"}
_HEADING = re.compile(r"^# +(.+?) *$", re.MULTILINE)
TEXT_STUB = "*Write your answer here.*"


class MarkupError(UsageError):
    """A lab's source is marked up in a way that cannot be built; names file and line."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(
            f"{path}, line {line}: {problem}",
            hint="the docstring of labkit/release.py lists the tags and markers of a lab's source",
        )
        self.path = path
        self.line = line


@dataclass(frozen=True)
class _Place:
    """Where a cell stands in its source file: its head (fence, tags) and its body, from 0."""

    path: Path
    lines: list[str]
    head: int
    body: int

    def error_in_head(self, tag: str, problem: str) -> MarkupError:
        head = self.lines[self.head : self.body]
        offset = next((n for n, line in enumerate(head) if tag in line), 0)
        return MarkupError(self.path, self.head + offset + 1, problem)

    def error_in_body(self, offset: int, problem: str) -> MarkupError:
        return MarkupError(self.path, self.body + offset + 1, problem)


@dataclass(frozen=True)
class _Region:
    """The lines between two markers; ``start`` is the offset of the first one in the cell."""

    kind: str
    start: int
    text: str


def find_labs(source_dir: Path, names: Iterable[str] = ()) -> list[Path]:
    """Find labs by number, by name without it or by both; all of them where none is named.

    They come in the order of their numbers, each one once.
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
    """Read a lab's source as a notebook, with its solutions, hidden tests and guards."""
    from jupytext.myst import MystMetadataParsingError, myst_to_notebook
    from nbformat import ValidationError

    if not _LAB_NAME.fullmatch(path.stem):
        raise MarkupError(path, 1, "a lab's file is called NN_verb_noun.md")
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    try:
        notebook: NotebookNode = myst_to_notebook(text, add_source_map=True)
    except MystMetadataParsingError as error:
        at = re.search(r"at line (\d+) could not be read", str(error))
        raise MarkupError(path, int(at[1]) if at else 1, str(error)) from error
    except ValidationError as error:  # nbformat's, of the only metadata that it has rules for
        problem = "tags are a list of words, without a space after a colon: [check:ID, points:N]"
        raise MarkupError(path, _line_of_bad_tags(lines), problem) from error

    ids: dict[str, _Place] = {}
    for position, (cell, start) in enumerate(
        zip(notebook.cells, notebook.metadata["source_map"], strict=True)
    ):
        place = _place(path, lines, max(start - 1, 0), cell.source)
        grade_id = _mark(cell, place)
        if grade_id in ids:
            raise place.error_in_head(
                grade_id.replace("-", ":"),
                f"the id {grade_id.replace('-', ':')} is already that of the cell in line "
                f"{ids[grade_id].head + 1}",
            )
        if grade_id:
            ids[grade_id] = place
        _check_regions(cell, place)
        cell.id = f"{path.stem[:2]}-{grade_id or f'{position:02d}'}"

    for cell in notebook.cells:
        grade_id = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        if cell.cell_type == "code" and grade_id.startswith("answer-"):
            name = grade_id.removeprefix("answer-")
            if f"check-{name}" not in ids:
                problem = f"answer:{name} has no check; mark one with check:{name} and points"
                raise ids[grade_id].error_in_head(f"answer:{name}", problem)
            if ids[f"check-{name}"].head < ids[grade_id].head:
                problem = f"check:{name} stands above answer:{name}, which it judges"
                raise ids[f"check-{name}"].error_in_head(f"check:{name}", problem)

    # Also drops what jupytext would keep for pairing, which would bring the answers back.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if not title(notebook):
        raise MarkupError(path, 1, "the lab has no title; write one as `# Verb a noun`")
    return notebook


def build(path: Path) -> str:
    """Build a lab's release, the text of its .ipynb; the same source gives the same bytes."""
    import nbformat
    from nbgrader.preprocessors import CheckCellMetadata, ClearHiddenTests, ComputeChecksums

    notebook = gradable(path)
    for step in (ClearHiddenTests, ComputeChecksums, CheckCellMetadata):
        step().preprocess(notebook, {})
    return str(nbformat.writes(notebook)) + "\n"  # type: ignore[no-untyped-call]


def gradable(path: Path) -> NotebookNode:
    """Read a lab's source as its marks are given by: the release, and the hidden tests in it."""
    from nbgrader.preprocessors import ClearOutput, ClearSolutions, ComputeChecksums, LockCells

    notebook = nbgrader_source(path)
    for index, cell in enumerate(notebook.cells):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            stub = _stub(solution(cell)) if cell.cell_type == "code" else ""
            clear = ClearSolutions(code_stub={"python": stub}, text_stub=TEXT_STUB)
            clear.preprocess_cell(cell, {"language": "python"}, index)
    # nbgrader's own order, of `generate_assignment`.
    for step in (LockCells, ClearOutput, ComputeChecksums):
        step().preprocess(notebook, {})
    return notebook


def nbgrader_source(path: Path) -> NotebookNode:
    """Read a lab's source as nbgrader wants it: with its solutions, without what is the kit's alone."""
    notebook = read_source(path)
    notebook.cells = [c for c in notebook.cells if not _GUARD_TAGS & set(c.metadata["tags"])]
    for cell in notebook.cells:
        cell.metadata.pop("labkit", None)
        if cell.cell_type == "markdown":
            cell.source = CLAIM_NOTE.sub("", cell.source)
        if not cell.metadata["tags"]:
            del cell.metadata["tags"]
    return notebook


def release(source_dir: Path, release_dir: Path) -> list[Path]:
    """Build every lab's release, all or, where one is refused, none; return their paths."""
    texts = {release_dir / f"{path.stem}.ipynb": build(path) for path in find_labs(source_dir)}
    release_dir.mkdir(parents=True, exist_ok=True)
    for target, text in texts.items():
        partial = target.with_suffix(".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    return list(texts)


def stale(source_dir: Path, release_dir: Path) -> list[Path]:
    """List the released notebooks that differ from their source, are missing or have none."""
    texts = {release_dir / f"{path.stem}.ipynb": build(path) for path in find_labs(source_dir)}
    there = {path: path.read_text(encoding="utf-8") for path in release_dir.glob("*.ipynb")}
    return sorted(path for path in texts | there if texts.get(path) != there.get(path))


def title(notebook: NotebookNode) -> str:
    """Return the first first-level heading, or an empty text."""
    headings = (_HEADING.search(cell.source) for cell in notebook.cells if cell.cell_type == "markdown")
    return next((str(heading[1]) for heading in headings if heading), "")


def check_id(cell: NotebookNode) -> str | None:
    """Return the ID of a check cell, None for any other cell."""
    meta = cell.metadata.get("nbgrader", {})
    is_check = meta.get("grade") and not meta.get("solution")
    return str(meta["grade_id"]).removeprefix("check-") if is_check else None


def docstring(source: str) -> str:
    """Return what a check cell says that it asks for, empty where it says nothing."""
    try:
        return " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    except SyntaxError:
        return ""


def without_hidden_tests(source: str) -> str:
    """Return a check cell's text as the learner sees it."""
    lines, hidden = [], False
    for line in source.splitlines():
        marker = _MARKER.search(line)
        if marker and marker[2] == "HIDDEN TESTS":
            hidden = marker[1] == "BEGIN"
        elif not hidden:
            lines.append(line)
    return "\n".join(lines)


def hidden_lines(source: str) -> list[str]:
    """Return the lines of a check cell that a learner does not see, without their markers."""
    texts = [r.text for r in _regions(source) if r.kind == "HIDDEN TESTS"]
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]


def claims_of(cell: NotebookNode) -> list[str]:
    """Return the ids of the claims that a source's cell proves."""
    return list(cell.metadata.get("labkit", {}).get("claims", ()))


def solution(cell: NotebookNode) -> str:
    """Return the solution of a source's cell, without its markers; empty where it has none."""
    texts = [r.text for r in _regions(cell.source) if r.kind == "SOLUTION"]
    return "\n".join(texts)


def _place(path: Path, lines: list[str], head: int, source: str) -> _Place:
    """Find a cell's body below its head."""
    wanted = source.splitlines()
    for body in range(head, len(lines)):
        if lines[body : body + len(wanted)] == wanted:
            return _Place(path, lines, head, body)
    return _Place(path, lines, head, head + 1)


def _line_of_bad_tags(lines: list[str]) -> int:
    """Find the first line, from 1, whose tags are not a list of words."""
    import yaml

    for number, line in enumerate(lines, 1):
        if re.match(r":?tags:|\+\+\+ *\{", line):
            tags = yaml.safe_load(line.lstrip(":+ ")).get("tags", [])
            if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
                return number
    return 1


def _mark(cell: NotebookNode, place: _Place) -> str:
    """Turn a cell's tags into nbgrader's metadata; return its grade id, if it has one."""
    unknown = set(cell.metadata) - {"tags"}
    if unknown:
        key = sorted(unknown)[0]
        raise place.error_in_head(key, f"cells are marked with tags only, not with {key!r}")
    tags = cell.metadata.get("tags", [])

    roles: list[tuple[str, str]] = []
    points = 0.0
    for tag in tags:
        match = _TAG.fullmatch(tag)
        if match is None and tag not in _PLAIN_TAGS and not _CLAIM_TAG.fullmatch(tag):
            raise place.error_in_head(tag, f"unknown tag {tag!r}")
        if match and match[1]:
            roles.append((match[1], match[2]))
        elif match:
            if points:
                raise place.error_in_head(tag, "the points are given twice")
            points = float(match[3])
    guard = _GUARD_TAGS & set(tags)
    if guard and guard != _GUARD_TAGS:
        raise place.error_in_head(guard.pop(), "a hidden guard has both tags: remove-cell, test")
    if len(roles) + bool(guard) > 1:
        raise place.error_in_head("tags", "a cell is one answer, one check or one guard")

    role, name = roles[0] if roles else ("", "")
    if claims := [match[1] for tag in tags if (match := _CLAIM_TAG.fullmatch(tag))]:
        if role != "check" and not guard:
            raise place.error_in_head("claim:", "a claim is proved by a check or by a hidden guard")
        cell.metadata["labkit"] = {"claims": claims}
    by_hand = role == "answer" and cell.cell_type == "markdown"
    cell.metadata["tags"] = [tag for tag in tags if tag in _PLAIN_TAGS]
    if role == "check" or by_hand:
        if cell.cell_type != "code" and not by_hand:
            raise place.error_in_head(f"check:{name}", f"check:{name} is not a code cell")
        if points <= 0:
            kind = "an answer in Markdown" if by_hand else "a check"
            raise place.error_in_head(f"{role}:{name}", f"{kind} needs points above 0: points:N")
    elif any(tag.startswith("points:") for tag in tags):
        raise place.error_in_head("points:", "points belong to a check or a Markdown answer")
    if not role:
        return ""

    if role == "check" and "raises-exception" not in tags:
        cell.metadata["tags"].append("raises-exception")  # Run All goes on past a failed check
    metadata: dict[str, Any] = {
        "cell_type": cell.cell_type,
        "grade": role == "check" or by_hand,
        "grade_id": f"{role}-{name}",
        "locked": role == "check",
        "schema_version": 3,
        "solution": role == "answer",
        "task": False,
    }
    if metadata["grade"]:
        metadata["points"] = int(points) if points.is_integer() else points
    cell.metadata["nbgrader"] = metadata
    return f"{role}-{name}"


def _check_regions(cell: NotebookNode, place: _Place) -> None:
    """Refuse markers that are unbalanced or in the wrong cell, and a solution that cannot go."""
    role = cell.metadata.get("nbgrader", {}).get("grade_id", "").partition("-")[0]
    opened = ""
    for offset, line in enumerate(cell.source.splitlines()):
        marker = _MARKER.search(line)
        if marker is None:
            if almost := _ALMOST.search(line):
                right = "HIDDEN TESTS" if "HIDDEN" in almost[2].upper() else "SOLUTION"
                problem = f"{line.strip()!r} is no marker; write {almost[1].upper()} {right}"
                raise place.error_in_body(offset, problem)
            continue
        edge, kind = marker.groups()
        if role != _REGION_OF[kind]:
            problem = f"{edge} {kind} is only for a cell tagged {_REGION_OF[kind]}:ID"
            raise place.error_in_body(offset, problem)
        if edge == "BEGIN" and opened:
            raise place.error_in_body(offset, f"BEGIN {kind} inside another {opened}")
        if edge == "END" and not opened:
            raise place.error_in_body(offset, f"END {kind} without its BEGIN")
        opened = kind if edge == "BEGIN" else ""
        opened_at = offset
    if opened:
        raise place.error_in_body(opened_at, f"BEGIN {opened} without its END")

    if role != "answer":
        return
    regions = _regions(cell.source)
    if len(regions) != 1:
        problem = f"an answer cell holds one BEGIN SOLUTION … END SOLUTION, not {len(regions)}"
        raise place.error_in_head("answer:", problem)
    if cell.cell_type == "code":
        try:
            _stub(regions[0].text)
        except SyntaxError as error:
            problem = f"the solution is not plain Python: {error.msg}"
            offset = regions[0].start + (error.lineno or 1) - 1
            raise place.error_in_body(offset, problem) from error


def _regions(source: str) -> list[_Region]:
    """Cut a cell's source, whose markers are balanced, into its marked regions."""
    lines = source.splitlines()
    marks = [(n, m[2]) for n, line in enumerate(lines) if (m := _MARKER.search(line))]
    return [
        _Region(kind, begin + 1, "\n".join(lines[begin + 1 : end]))
        for (begin, kind), (end, _) in zip(marks[::2], marks[1::2], strict=True)
    ]


def _stub(code: str) -> str:
    """Write `name = ...` for each name that a solution leaves behind, except `_private` ones."""
    table = symtable.symtable(dedent(code), "<solution>", "exec")
    names = [
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned() and not symbol.is_imported()
    ]
    stubs = [f"{name} = ..." for name in names if not name.startswith("_")]
    return "\n".join(stubs) or "# Your code here"
