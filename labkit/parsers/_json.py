"""The JSON that iproute2 prints with -j: entries with their lines, values with their types."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from labkit.parsers._table import SURROGATE, ParseError, Where, shown
from labkit.schema import Row

_BLANK = re.compile(r"[ \t\r\n]*")


def is_json(text: str) -> bool:
    """Whether a tool was asked for JSON: no text form of iproute2 begins with a bracket."""
    return text.lstrip().startswith("[")


def read_objects(text: str, tool: str) -> Iterator[tuple[Row, Where]]:
    """Yield the objects of a JSON list, each with the line that it begins on and its text.

    Empty ones are passed over: iproute2 leaves them where a filter took an entry out. Of a name that an
    object has twice the first counts, as it does in the text form. Raises ParseError for all else.
    """
    expected = f"the JSON of `{tool} -j`"
    decoder = json.JSONDecoder(object_pairs_hook=_first_of_each, parse_constant=_no_number)
    at = _skip_blanks(text, text.index("[") + 1)
    number, counted = 1, 0
    closing = text.startswith("]", at)
    while not closing:
        number += text.count("\n", counted, at)
        counted = at
        try:
            entry, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError as exc:
            raise ParseError(exc.lineno, _line_at(text, exc.pos), expected) from exc
        except (ValueError, RecursionError) as exc:  # NaN, thousands of digits, or of brackets
            raise ParseError(number, _line_at(text, at), expected) from exc
        where = (number, text[at:end])
        if not isinstance(entry, dict):
            raise ParseError(*where, f"objects in the JSON of `{tool} -j`")
        if entry:
            yield entry, where
        at = _skip_blanks(text, end)
        closing = text.startswith("]", at)
        if not closing and not text.startswith(",", at):
            raise ParseError(number + text.count("\n", counted, at), _line_at(text, at), expected)
        if not closing:
            at = _skip_blanks(text, at + 1)
    end = _skip_blanks(text, at + 1)
    if end < len(text):
        number += text.count("\n", counted, end)
        raise ParseError(number, _line_at(text, end), f"nothing behind {expected}")


def text_of(entry: Row, key: str, where: Where) -> str | None:
    """Return a text of an entry; None when it has none. Raises ParseError for another type."""
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or SURROGATE.search(value):
        raise ParseError(*where, f"a text as {key!r}, not {shown(str(value))}")
    return value


def number_of(entry: Row, key: str, where: Where) -> int | None:
    """Return a whole number of an entry; None when it has none. Raises ParseError for another type."""
    value = entry.get(key)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value < 2**63:
        raise ParseError(*where, f"a whole number of 64 bits as {key!r}")
    return value


def object_of(entry: Row, key: str, where: Where) -> Row:
    """Return an object of an entry, or an empty one. Raises ParseError for another type."""
    value = entry.get(key, {})
    if not isinstance(value, dict):
        raise ParseError(*where, f"an object as {key!r}")
    return value


def objects_of(entry: Row, key: str, where: Where) -> list[Row]:
    """Return the objects of a list of an entry, if not empty. Raises ParseError for another type."""
    value = entry.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ParseError(*where, f"a list of objects as {key!r}")
    return [item for item in value if item]


def words_of(entry: Row, key: str, where: Where) -> list[str]:
    """Return the words of an entry: a list, or one text. Raises ParseError for another type."""
    value = entry.get(key, [])
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(
        isinstance(word, str) and not SURROGATE.search(word) for word in words
    ):
        raise ParseError(*where, f"words as {key!r}")
    return [word for word in words if word]


def _skip_blanks(text: str, at: int) -> int:
    """Return the next place that has no blank."""
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _first_of_each(pairs: Sequence[tuple[str, Any]]) -> Row:
    found: Row = {}
    for key, value in pairs:
        found.setdefault(key, value)
    return found


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _line_at(text: str, at: int) -> str:
    """Return the whole line of a place in a text."""
    return text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]
