"""How an author marks the cells of a lab's source, and what the marks become in a notebook.

An author marks cells with tags and nothing else:

    answer:ID                 a code cell with the learner's answer; a check of the same ID follows
    answer:ID, points:N       the same in Markdown, marked by hand: `+++ {"tags": [...]}` above it
    check:ID, points:N        a code cell that judges the answer, or the state of the swarm
    remove-cell, test         a guard for a number in the prose; only the source has it
    claim:ID                  beside check:ID or remove-cell: the cell proves this claim of the ledger
    raises-exception          a cell that should end in an error

After a check, its hints stand in a comment, which the release has in its metadata: one to three, each
on a line of its own. The first one says where to look; the last one nearly the answer.

    <!-- hints: ID
    1. The column `protocol` of `matrix`.
    2. Leave out the rows that were answered.
    -->

An answer in words has a rubric, in a comment that only the source has: criteria with their points,
which add up to those of the answer.

    <!-- rubric: ID
    1: It names the namespace in which the packet ends.
    1: It says what was changed, and what happened then.
    -->

A Markdown paragraph that states a fact ends with `<!-- claim: ID -->`. The release has there on which
Docker versions it was seen.

A solution stands between `### BEGIN SOLUTION` and `### END SOLUTION`, once in every answer cell.
The release has `name = ...` there, for each name that the solution assigns, so that Run All
continues. Hidden tests stand between `### BEGIN HIDDEN TESTS` and `### END HIDDEN TESTS`, in check
cells.
"""

from __future__ import annotations

import ast
import re
import symtable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from labkit import nbgrader_cells
from labkit.errors import UsageError
from labkit.nbgrader_cells import Role, role_of

if TYPE_CHECKING:
    from nbformat import NotebookNode

_TAG = re.compile(r"(answer|check):([a-z][a-z0-9_]{0,39})|points:(\d+(?:\.\d+)?)")
GUARD_TAGS = {"remove-cell", "test"}
_PLAIN_TAGS = {*GUARD_TAGS, "raises-exception"}
_CLAIM_TAG = re.compile(r"claim:([a-z0-9][a-z0-9-]*)")
CLAIM_NOTE = re.compile(r"\s*<!-- claim: ([a-z0-9 -]+?) -->")
_NOTES = re.compile(r"\n*<!-- (hints|rubric): ([^\n]*)\n(.*?)-->\n*", re.DOTALL)
_HINT = re.compile(r"(\d)\. (\S.*)")
_CRITERION = re.compile(r"(\d+(?:\.\d+)?): (\S.*)")
_MOST_HINTS = 3
_MARKER = re.compile(r"\b(BEGIN|END) (SOLUTION|HIDDEN TESTS)\b")
_ALMOST = re.compile(r"\b(BEGIN|END)[\s_-]*(SOLUTION|HIDDEN[\s_-]*TEST)", re.IGNORECASE)
_TAG_OF_REGION = {"SOLUTION": "answer", "HIDDEN TESTS": "check"}


class MarkupError(UsageError):
    """A lab's source is marked up in a way that cannot be built; names file and line."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(
            f"{path}, line {line}: {problem}",
            hint="the docstring of labkit/authoring/markup.py lists the tags and markers of a source",
        )
        self.path = path
        self.line = line


@dataclass(frozen=True)
class Place:
    """Where a cell stands in its source file: the lines, from 0, of its head (fence, tags) and body."""

    path: Path
    lines: list[str]
    head: int
    body: int

    def error_in_head(self, tag: str, problem: str) -> MarkupError:
        """Make the error for a line of the head, the first one that has ``tag``."""
        head = self.lines[self.head : self.body]
        offset = next((n for n, line in enumerate(head) if tag in line), 0)
        return MarkupError(self.path, self.head + offset + 1, problem)

    def error_in_body(self, offset: int, problem: str) -> MarkupError:
        """Make the error for a line of the body, ``offset`` from 0."""
        return MarkupError(self.path, self.body + offset + 1, problem)


@dataclass(frozen=True)
class _Tags:
    """What the tags of a cell say."""

    role: Role
    question: str
    points: float  # 0: no points are given
    claims: list[str]
    plain: list[str]  # the tags that the notebook keeps


@dataclass(frozen=True)
class _Region:
    """The lines between two markers; ``start`` is the offset of the first one in the cell."""

    kind: str
    start: int
    text: str


# --- reading a marked cell -----------------------------------------------------------------------


def solution(cell: NotebookNode) -> str:
    """Return the solution of a source's cell, without its markers; empty where it has none."""
    texts = [r.text for r in _regions(cell.source) if r.kind == "SOLUTION"]
    return "\n".join(texts)


def hidden_lines(source: str) -> list[str]:
    """Return the lines of a check cell that a learner does not see, without their markers."""
    texts = [r.text for r in _regions(source) if r.kind == "HIDDEN TESTS"]
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]


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


def docstring(source: str) -> str:
    """Return the docstring of a check cell, which says what it asks for; empty where it has none."""
    try:
        return " ".join((ast.get_docstring(ast.parse(source)) or "").split())
    except SyntaxError:
        return ""


@dataclass
class Notes:
    """What the comments of a source say of its questions, by question."""

    hints: dict[str, list[str]] = field(default_factory=dict)
    rubrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Each a list of points and criterion."""

    def take(self, text: str, place: Place) -> str:
        """Take the comments out of a Markdown cell's text; returns the rest.

        Raises MarkupError for one that is not written as the module's docstring says.
        """
        for kind, name, body in _NOTES.findall(text):
            question, lines = name.strip(), [line.strip() for line in body.strip().splitlines()]
            tag = f"{kind}: {question}"
            if question in (self.hints if kind == "hints" else self.rubrics):
                raise place.error_in_head(tag, f"{question} has {kind} twice")
            if kind == "hints":
                self.hints[question] = _hints(lines, place, tag)
            else:
                self.rubrics[question] = _rubric(lines, place, tag)
        return _NOTES.sub("\n\n", text).strip("\n") if _NOTES.search(text) else text


def _hints(lines: list[str], place: Place, tag: str) -> list[str]:
    found = [_HINT.fullmatch(line) for line in lines]
    numbers = [int(hint[1]) for hint in found if hint]
    if numbers != list(range(1, len(lines) + 1)) or not 0 < len(lines) <= _MOST_HINTS:
        problem = f"hints are lines `1. …` to `{_MOST_HINTS}. …`, one line each"
        raise place.error_in_head(tag, problem)
    return [hint[2].strip() for hint in found if hint]


def _rubric(lines: list[str], place: Place, tag: str) -> list[dict[str, Any]]:
    found = [_CRITERION.fullmatch(line) for line in lines]
    if not lines or not all(found):
        raise place.error_in_head(tag, "a rubric has lines `POINTS: criterion`, one line each")
    return [{"points": float(one[1]), "criterion": one[2].strip()} for one in found if one]


def claims_of(cell: NotebookNode) -> list[str]:
    """Return the ids of the claims that a source's cell proves."""
    return list(cell.metadata.get("labkit", {}).get("claims", ()))


# --- tags ----------------------------------------------------------------------------------------


def place_of(path: Path, lines: list[str], head: int, source: str) -> Place:
    """Find a cell's body below its head."""
    texts = source.splitlines()
    for body in range(head, len(lines)):
        if lines[body : body + len(texts)] == texts:
            return Place(path, lines, head, body)
    return Place(path, lines, head, head + 1)


def mark(cell: NotebookNode, place: Place) -> None:
    """Turn a cell's tags into metadata: nbgrader's, and the claims that it proves."""
    unknown = set(cell.metadata) - {"tags"}
    if unknown:
        key = sorted(unknown)[0]
        raise place.error_in_head(key, f"cells are marked with tags only, not with {key!r}")
    tags = _read_tags(cell, place)
    _check_points(tags, cell, place)
    cell.metadata["tags"] = tags.plain
    if tags.claims:
        cell.metadata["labkit"] = {"claims": tags.claims}
    if tags.role is Role.GIVEN:
        return
    if tags.role is Role.CHECK and "raises-exception" not in tags.plain:
        cell.metadata["tags"].append("raises-exception")  # Run All goes on past a failed check
    cell.metadata["nbgrader"] = nbgrader_cells.metadata(
        tags.role, tags.question, cell_type=cell.cell_type, points=tags.points
    )


def _read_tags(cell: NotebookNode, place: Place) -> _Tags:
    """Read the tags of a cell, and refuse those that are unknown or do not go together."""
    words: list[str] = cell.metadata.get("tags", [])
    roles: list[tuple[str, str]] = []
    points = 0.0
    claims = []
    for word in words:
        if claim := _CLAIM_TAG.fullmatch(word):
            claims.append(claim[1])
        elif match := _TAG.fullmatch(word):
            if match[1]:
                roles.append((match[1], match[2]))
                continue
            if points:
                raise place.error_in_head(word, "the points are given twice")
            points = float(match[3])
        elif word not in _PLAIN_TAGS:
            raise place.error_in_head(word, f"unknown tag {word!r}")
    guard = GUARD_TAGS & set(words)
    if guard and guard != GUARD_TAGS:
        raise place.error_in_head(guard.pop(), "a hidden guard has both tags: remove-cell, test")
    if len(roles) + bool(guard) > 1:
        raise place.error_in_head("tags", "a cell is one answer, one check or one guard")
    name, question = roles[0] if roles else ("", "")
    if claims and name != "check" and not guard:
        raise place.error_in_head("claim:", "a claim is proved by a check or by a hidden guard")
    plain = [word for word in words if word in _PLAIN_TAGS]
    return _Tags(_role(name, cell.cell_type), question, points, claims, plain)


def _role(name: str, cell_type: str) -> Role:
    """Return the role of a cell with the tag answer:ID or check:ID, or with neither."""
    if name == "answer":
        return Role.ANSWER if cell_type == "code" else Role.TEXT_ANSWER
    return Role.CHECK if name == "check" else Role.GIVEN


def _check_points(tags: _Tags, cell: NotebookNode, place: Place) -> None:
    """Refuse a graded cell without points, and points on any other cell."""
    name = tags.question
    if tags.role is Role.CHECK and cell.cell_type != "code":
        raise place.error_in_head(f"check:{name}", f"check:{name} is not a code cell")
    if tags.role is Role.CHECK and tags.points <= 0:
        raise place.error_in_head(f"check:{name}", "a check needs points above 0: points:N")
    if tags.role is Role.TEXT_ANSWER and tags.points <= 0:
        problem = "an answer in Markdown needs points above 0: points:N"
        raise place.error_in_head(f"answer:{name}", problem)
    has_points = any(word.startswith("points:") for word in cell.metadata.get("tags", []))
    if has_points and not tags.role.is_graded:
        raise place.error_in_head("points:", "points belong to a check or a Markdown answer")


# --- marked regions ------------------------------------------------------------------------------


def check_regions(cell: NotebookNode, place: Place) -> None:
    """Refuse markers that are unbalanced or in the wrong cell, and a solution that cannot go."""
    _check_markers(cell, place)
    if not role_of(cell).is_answer:
        return
    regions = _regions(cell.source)
    if len(regions) != 1:
        problem = f"an answer cell holds one BEGIN SOLUTION … END SOLUTION, not {len(regions)}"
        raise place.error_in_head("answer:", problem)
    if cell.cell_type == "code":
        try:
            stub(regions[0].text)
        except SyntaxError as error:
            problem = f"the solution is not plain Python: {error.msg}"
            offset = regions[0].start + (error.lineno or 1) - 1
            raise place.error_in_body(offset, problem) from error


def _check_markers(cell: NotebookNode, place: Place) -> None:
    """Refuse markers that are misspelt, unbalanced or in the wrong cell."""
    role = role_of(cell)
    tag = "answer" if role.is_answer else role.value
    opened, opened_at = "", 0
    for offset, line in enumerate(cell.source.splitlines()):
        marker = _MARKER.search(line)
        if marker is None:
            if almost := _ALMOST.search(line):
                right = "HIDDEN TESTS" if "HIDDEN" in almost[2].upper() else "SOLUTION"
                problem = f"{line.strip()!r} is no marker; write {almost[1].upper()} {right}"
                raise place.error_in_body(offset, problem)
            continue
        edge, kind = marker.groups()
        if tag != _TAG_OF_REGION[kind]:
            problem = f"{edge} {kind} is only for a cell tagged {_TAG_OF_REGION[kind]}:ID"
            raise place.error_in_body(offset, problem)
        if edge == "BEGIN" and opened:
            raise place.error_in_body(offset, f"BEGIN {kind} inside another {opened}")
        if edge == "END" and not opened:
            raise place.error_in_body(offset, f"END {kind} without its BEGIN")
        opened, opened_at = (kind if edge == "BEGIN" else ""), offset
    if opened:
        raise place.error_in_body(opened_at, f"BEGIN {opened} without its END")


def _regions(source: str) -> list[_Region]:
    """Cut a cell's source, whose markers are balanced, into its marked regions."""
    lines = source.splitlines()
    marks = [(n, m[2]) for n, line in enumerate(lines) if (m := _MARKER.search(line))]
    return [
        _Region(kind, begin + 1, "\n".join(lines[begin + 1 : end]))
        for (begin, kind), (end, _) in zip(marks[::2], marks[1::2], strict=True)
    ]


def stub(code: str) -> str:
    """Write `name = ...` for each name that a solution leaves behind, except `_private` ones."""
    table = symtable.symtable(dedent(code), "<solution>", "exec")
    names = [
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_assigned() and not symbol.is_imported()
    ]
    stubs = [f"{name} = ..." for name in names if not name.startswith("_")]
    return "\n".join(stubs) or "# Your code here"
