"""Read a roster: which learner's id belongs to which folder of submissions.

A CSV file (UTF-8, commas or semicolons) with two columns, named in its first line:

    folder                                     student
    Anna Müller_12345_assignsubmission_file_   anna
    M\\xfcller                                  mueller

A byte that is not UTF-8 in a folder's name is written as `labkit grade` shows it, `\\xfc`.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from labkit import variants
from labkit.errors import UsageError

_COLUMNS = ("folder", "student")
_MAX_BYTES = 10_000_000
_HINT = "two columns, folder,student in the first line, then a line for each learner"


def read(path: Path) -> dict[str, str]:
    """Return the learner's id by the folder's name.

    Raises UsageError where it cannot be read, where a line has no learner's id, and where a folder or
    a learner is there twice.
    """
    found: dict[str, str] = {}
    for line, (folder, student) in _rows(path, _COLUMNS, _HINT):
        folder = unicodedata.normalize("NFC", folder)
        where = f"the roster {path}, line {line}"
        try:
            variants.of(student or " ")
        except UsageError as problem:
            raise UsageError(f"{where}: {problem.args[0]}", hint=_HINT) from problem
        if folder in found or student in found.values():
            raise UsageError(
                f"{where}: the folder {folder!r} or the learner {student!r} is there twice", hint=_HINT
            )
        found[folder] = student
    return found


def learners(path: Path) -> list[str]:
    """Return the learners' ids, the column `student`; raises UsageError where it cannot be read."""
    hint = "a CSV file (UTF-8) with a column student, named in its first line"
    return [student for _, (student,) in _rows(path, ("student",), hint)]


def _rows(path: Path, columns: Sequence[str], hint: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not empty, and its values in some columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read(_MAX_BYTES)
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise UsageError(f"the roster {path} cannot be read: {reason}", hint=hint) from problem
    first = text.split("\n", 1)[0]
    rows = csv.DictReader(text.splitlines(), delimiter=";" if ";" in first else ",")
    if not set(columns) <= set(rows.fieldnames or ()):
        named = " and ".join(columns)
        plural = "s" if len(columns) > 1 else ""
        raise UsageError(f"the roster {path} has no column{plural} {named}", hint=hint)
    for row in rows:
        values = [(row[name] or "").strip() for name in columns]
        if any(values):
            yield rows.line_num, values
