"""What the parsers share: the error, and the small pieces of grammar that many tools have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from labkit.errors import LabkitError
from labkit.schema import Row, schema_of

if TYPE_CHECKING:
    import pandas as pd

Patterns = Mapping[str, re.Pattern[str]]

_COUNTER = re.compile(r"(\d+)([KMGT]?)")
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class ParseError(LabkitError):
    """A line of a tool's output that its parser does not understand."""

    def __init__(self, number: int, line: str, expected: str) -> None:
        super().__init__(
            f"line {number}: expected {expected}, found {line!r}",
            hint="look at the raw text; a new form of the tool's output belongs in tests/captures",
        )
        self.number = number
        self.line = line
        self.expected = expected


def columns(parser: Callable[..., pd.DataFrame]) -> dict[str, str]:
    """Return a parser's columns and their pandas dtypes, as it declares them."""
    return dict(schema_of(parser).dtypes)


def classify(
    text: str, patterns: Patterns, expected: str
) -> Iterator[tuple[str, Row, tuple[int, str]]]:
    """Yield for each line the first pattern that fits all of it: its name, its groups, and where.

    Empty lines are passed over. Raises ParseError for a line that no pattern fits.
    """
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line:
            continue
        for name, pattern in patterns.items():
            if found := pattern.fullmatch(line):
                yield name, found.groupdict(), (number, line)
                break
        else:
            raise ParseError(number, line, expected)


def counter(text: str) -> int | None:
    """Read a counter that iptables or ipvsadm may have shortened: 12K is 12000.

    None when the text is no counter.
    """
    found = _COUNTER.fullmatch(text)
    return int(found[1]) * _FACTORS[found[2]] if found else None


def endpoint(text: str) -> tuple[str | None, int | None]:
    """Split `address:port`; an absent address, and port 0 or *, become None."""
    address, _, port = text.rpartition(":")
    return address.strip("[]") or None, None if port in ("*", "0") else int(port)
