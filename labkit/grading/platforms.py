"""Put marks into a gradebook that Moodle or Canvas has exported, for it to import again.

Both import what they have exported, with other numbers in it, and know learners and columns by what
stands there (docs.moodle.org, *Grade import*; Canvas's guide for instructors, *How do I import grades
in the Gradebook?*). So the platform's own file is filled in: every other cell, the order, the
delimiter and the byte order mark stay as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from labkit import files
from labkit.errors import UnknownNameError, UsageError
from labkit.grading.texts import visible

LEARNER_COLUMNS = ("SIS Login ID", "Username", "ID number", "Email address")
"""Where an export has a learner's id: the first of these that is filled in. Canvas has the first."""

_GRADE, _MAXIMUM = "Grade", "Maximum grade"  # of Moodle's worksheet for one assignment
_POSSIBLE = "points possible"  # begins the second line of Canvas's
_MAX_BYTES = 50_000_000
_BOM = "\ufeff"
_HINT = "export the gradebook of the course from the platform as CSV, and give that file"


@dataclass(frozen=True)
class Mark:
    """What a learner has for a lab, as a line of `labkit grade`'s CSV says it."""

    student: str
    lab: str
    points: float
    most: float
    unread: int
    """Answers in words that a person still has to read: the points are not the last ones."""


@dataclass(frozen=True)
class Filled:
    """What was put in, and what was not."""

    text: str
    """The file, as the platform takes it."""
    marks: int
    """How many marks are in it."""
    left_out: tuple[str, ...]
    """What is not in it, a sentence each."""


def read_marks(path: Path) -> list[Mark]:
    """Read the CSV file of `labkit grade`; a submission without points is left out.

    Raises UsageError where it cannot be read or is no such file.
    """
    rows = csv.DictReader(io.StringIO(_text(path, "the marks")))
    wanted = {"student", "lab", "points", "max", "to_mark_by_hand"}
    if not wanted <= set(rows.fieldnames or ()):
        raise UsageError(
            f"{path} is no table of marks", hint="labkit grade DIR --out grades.csv, first"
        )
    found = []
    for row in rows:
        try:
            points, most = float(row["points"] or "nan"), float(row["max"])
            mark = Mark(row["student"], row["lab"], points, most, int(row["to_mark_by_hand"]))
        except (TypeError, ValueError) as problem:
            raise UsageError(
                f"{path}, line {rows.line_num}: {problem}", hint="labkit grade writes the file anew"
            ) from problem
        if points == points:  # not a number: it was refused
            found.append(mark)
    return found


def fill(
    export: Path,
    marks: Sequence[Mark],
    *,
    columns: Mapping[str, str] | None = None,
    learner: str = "",
    scale: bool = False,
    unread: bool = False,
) -> Filled:
    """Put marks into a platform's export, and say what was put where.

    `columns` names the export's column for a lab, by the lab's name or its number; without it, it is
    the one column whose title has the lab's name or number in it. `learner` names the column with the
    learners' ids, without it the first of LEARNER_COLUMNS; an e-mail address counts with what stands
    before its @, too. Points go in as they are; where the export says another maximum, `scale` turns
    them into that one's. Marks with answers that nobody has read stay out, unless `unread`.

    Raises UsageError where the export cannot be read, a learner or a column is not certain, or a
    maximum differs without `scale`; UnknownNameError for a column that is not there.
    """
    sheet = _Sheet.read(export)
    ids = sheet.learners(learner)
    left_out = []
    places = {lab: sheet.place_of(lab, columns or {}) for lab in sorted({m.lab for m in marks})}
    done: set[tuple[int, str]] = set()
    for mark in marks:
        row = ids.get(mark.student.casefold())
        who = f"{visible(mark.student)} {mark.lab[:2]}"
        if row is None:
            left_out.append(f"{who}: no such learner in the export")
        elif mark.unread and not unread:
            left_out.append(f"{who}: {mark.unread} answers are still to be read")
        elif (row, mark.lab) in done:
            raise UsageError(
                f"{who} has two marks for one lab", hint="one assignment at a time: grade it by itself"
            )
        else:
            done.add((row, mark.lab))
            sheet.put(row, places[mark.lab], mark, scale=scale)
    marked = {row for row, _ in done}
    named = {row: who for who, row in reversed(ids.items())}  # an e-mail address has two names
    left_out += [f"{visible(who)}: no marks" for row, who in sorted(named.items()) if row not in marked]
    return Filled(sheet.text(), len(done), tuple(left_out))


def write(path: Path, filled: Filled) -> None:
    """Write a file that was filled in, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        partial.write_bytes(filled.text.encode())


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise UsageError(f"{what}, {path}, has more than {_MAX_BYTES:,} bytes", hint=_HINT)
        return raw.decode()
    except OSError as problem:
        raise UsageError(f"{what}, {path}, cannot be read: {problem.strerror}", hint=_HINT) from problem
    except UnicodeDecodeError as problem:
        raise UsageError(f"{what}, {path}, is not UTF-8", hint=_HINT) from problem


Kind = Literal["points", "percent"]


@dataclass(frozen=True)
class _Place:
    """A column for a lab's points: which, in what they are counted, and the most that it takes."""

    column: int
    kind: Kind
    most: float | None
    title: str


@dataclass
class _Sheet:
    """A platform's export: its lines, and how it was written."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    delimiter: str
    ending: str
    bom: bool

    @classmethod
    def read(cls, path: Path) -> _Sheet:
        """Read it; raises UsageError where it is no table."""
        text = _text(path, "the export")
        body = text.removeprefix(_BOM)
        first = body.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        ending = "\r\n" if first.endswith("\r") else "\n"
        lines = list(csv.reader(io.StringIO(body, newline=""), delimiter=delimiter))
        if len(lines) < 2 or len(lines[0]) < 2:
            raise UsageError(f"the export {path} has no learners", hint=_HINT)
        header, *rows = lines
        return cls(path, header, rows, delimiter, ending, text.startswith(_BOM))

    def text(self) -> str:
        """Return it as it was written, with what was put in."""
        out = io.StringIO()
        table = csv.writer(out, delimiter=self.delimiter, lineterminator=self.ending)
        table.writerows([self.header, *self.rows])
        return (_BOM if self.bom else "") + out.getvalue()

    def learners(self, column: str) -> dict[str, int]:
        """Return the rows by the learner's id in small letters; raises UsageError, UnknownNameError."""
        at = self._column(column or next(filter(self._has_values, LEARNER_COLUMNS), ""))
        found: dict[str, int] = {}
        for number, row in enumerate(self.rows):
            if len(row) != len(self.header) or self._is_of_points(row) or not row[at].strip():
                continue
            name = row[at].strip().casefold()
            for known in dict.fromkeys((name, name.partition("@")[0])):
                if known in found:
                    raise UsageError(
                        f"the export {self.path} has {visible(known)!r} twice in {self.header[at]!r}",
                        hint="name the column with the learners' ids: --learner-column",
                    )
                found[known] = number
        return found

    def place_of(self, lab: str, columns: Mapping[str, str]) -> _Place:
        """Return where a lab's points go; raises UsageError, UnknownNameError."""
        number = lab.partition("_")[0]
        named = columns.get(lab) or columns.get(number)
        if named:
            at = self._column(named)
        elif _GRADE in self.header and _MAXIMUM in self.header:  # Moodle's, of one assignment
            at = self.header.index(_GRADE)
        else:
            fitting = [n for n, title in enumerate(self.header) if _names(title, lab, number)]
            if len(fitting) != 1:
                found = ", ".join(repr(self.header[n]) for n in fitting) or "none"
                raise UsageError(
                    f"which column of the export is for lab {lab}? Its name or number have: {found}",
                    hint=f"--column {number}='TITLE OF THE COLUMN'",
                )
            (at,) = fitting
        title = self.header[at]
        if title.rstrip().endswith("(Percentage)"):
            return _Place(at, "percent", 100.0, title)
        return _Place(at, "points", self._most(at), title)

    def put(self, row: int, place: _Place, mark: Mark, *, scale: bool) -> None:
        """Write a mark into its cell; raises UsageError where it does not fit."""
        cells = self.rows[row]
        most = place.most
        if most is None and _MAXIMUM in self.header and place.title == _GRADE:
            most = _number(cells[self.header.index(_MAXIMUM)])
        value = mark.points
        if place.kind == "percent":
            value = 100 * mark.points / mark.most if mark.most else 0.0
        elif most is not None and most != mark.most:
            if not scale:
                raise UsageError(
                    f"lab {mark.lab} gives {mark.most:g} points, and {place.title!r} takes {most:g}",
                    hint="--scale turns the points into those, or change the maximum on the platform",
                )
            value = mark.points * most / mark.most if mark.most else 0.0
        percent = " %" if place.kind == "percent" else ""
        cells[place.column] = f"{round(value, 2):g}{percent}"

    def _column(self, name: str) -> int:
        if name not in self.header:
            raise UnknownNameError(
                "column of the export",
                name,
                map(visible, self.header),
                hint="--learner-column, --column",
            )
        return self.header.index(name)

    def _has_values(self, name: str) -> bool:
        """Whether there is such a column, with something in it."""
        if name not in self.header:
            return False
        at = self.header.index(name)
        return any(len(row) > at and row[at].strip() for row in self.rows)

    def _is_of_points(self, row: Sequence[str]) -> bool:
        """Whether a line is Canvas's own, with the points that are possible."""
        return row[0].strip().casefold() == _POSSIBLE

    def _most(self, column: int) -> float | None:
        """Return the points that a column takes at most, where the export says so."""
        for row in self.rows[:2]:
            if len(row) == len(self.header) and self._is_of_points(row):
                return _number(row[column])
        return None


def _names(title: str, lab: str, number: str) -> bool:
    """Whether a column's title is about a lab: it has its name, or its number as a word."""
    words = "".join(c if c.isalnum() else " " for c in title.casefold()).split()
    return lab.casefold() in title.casefold() or number in words


def _number(text: str) -> float | None:
    try:
        return float(text.strip().replace(",", "."))
    except ValueError:
        return None
