"""A stranger's text, made safe for a terminal, a sentence, or in a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit import files

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_LONGEST = 200  # characters of a name in a sentence


def visible(text: str, longest: int = _LONGEST) -> str:
    """Return a text in which every character can be seen, `longest` of them at most.

    Control characters, those that turn the direction of writing, and bytes of a file's name that are
    not UTF-8 become what Python writes for them: `\\x1b`, `\\u202e`, `\\xfc`.
    """
    kept = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return "".join(c if c.isprintable() else _escaped(c) for c in kept)


def _escaped(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python reads a byte that is not UTF-8 in a file's name
        return f"\\x{number - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def no_formula(value: object) -> object:
    """Keep a stranger's text from being taken for a formula by a spreadsheet.

    The first characters are those of OWASP's page on CSV injection, with their full-width forms, also
    at the beginning of a later line; a half of a character, which no file can hold, is replaced.
    """
    if not isinstance(value, str):
        return value
    text = value.encode("utf-8", "replace").decode()
    return "\n".join(f"'{line}" if line.startswith(_FORMULA) else line for line in text.split("\n"))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as a table; every field is quoted, and none can begin a formula. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, quoting=csv.QUOTE_ALL)
        table.writeheader()
        for row in rows:
            table.writerow({name: no_formula(row[name]) for name in columns})
