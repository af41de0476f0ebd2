"""What the parsers share: the error, the lines, and the pieces of grammar that many tools have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from labkit.errors import LabkitError
from labkit.schema import Row, schema_of

if TYPE_CHECKING:
    import pandas as pd

Patterns = Mapping[str, re.Pattern[str]]
Where = tuple[int, str]
"""The number of a line, from 1, and the line: what a ParseError names."""

NUMBER = "[0-9]{1,18}"
"""A whole number as tools print it, small enough for a column of 64 bits."""
DECIMAL = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
"""A number that may have a fraction."""
ADDRESS = "[0-9a-f.:]{2,45}"
"""What may be a numeric IP address, as `is_address` then finds out."""

_HINT = (
    "look at the raw text: a command that was stopped leaves half a line; a new form of a tool's"
    " output belongs in tests/captures"
)
_CUT = "the command was stopped in that line: give it more time, or read the text without the line"
_SHOWN = 200  # characters of a line in a message; a server may send a megabyte without a line end
_COUNTER = re.compile("([0-9]{1,18})([KMGT]?)")
_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LARGEST = 2**63 - 1
_ENDPOINT = re.compile(
    r"(?:\[(?P<inner>[^\[\]]*)\](?P<zone>%[^\[\]:]+)?|(?P<bare>[^\[\]]*)):(?P<port>[0-9]{1,5}|\*)"
)
# Half of a character outside the 16-bit range: no text, and no file could hold it.
SURROGATE = re.compile("[\ud800-\udfff]")


class ParseError(LabkitError):
    """A line of a tool's output that its parser does not understand."""

    def __init__(self, number: int, line: str, expected: str, *, hint: str = "") -> None:
        super().__init__(
            f"line {number}: expected {expected}, found {shown(line)}",
            hint=hint or _HINT,
        )
        self.number = number
        self.line = line
        self.expected = expected


def shown(text: str) -> str:
    """Return text as a message shows it: in quotes, and not longer than a person would read."""
    part = text[:_SHOWN]
    while len(repr(part)) > 2 * _SHOWN:  # a character that cannot be printed takes up to ten
        part = part[: len(part) // 2]
    return repr(part if part == text else f"{part}…")


def columns(parser: Callable[..., pd.DataFrame]) -> dict[str, str]:
    """Return a parser's columns and their pandas dtypes, as it declares them."""
    return dict(schema_of(parser).dtypes)


def lines(text: str) -> Iterator[Where]:
    """Yield the lines that are not empty with their numbers, without the blanks at their ends.

    Raises ParseError for a line that is no text, and for a last line without its line end: a command
    that was stopped leaves what it had printed by then, and half an address looks like a whole one.
    """
    parts = text.split("\n")
    for number, raw in enumerate(parts, start=1):
        line = raw.rstrip()
        if SURROGATE.search(line):
            raise ParseError(number, line, "text, without halves of characters")
        if line:
            yield number, line
    if parts[-1].strip():
        raise ParseError(len(parts), parts[-1], "a line end behind it", hint=_CUT)


def grammar(**patterns: str) -> Patterns:
    r"""Compile patterns by name. `\d`, `\s`, `\w` mean ASCII: Python would take any script's digits."""
    return {name: re.compile(pattern, re.ASCII) for name, pattern in patterns.items()}


def match(where: Where, line: str, patterns: Patterns, expected: str) -> tuple[str, Row]:
    """Return the first pattern that fits all of a line: its name and its groups.

    Raises ParseError, with ``where``, when no pattern fits.
    """
    for name, pattern in patterns.items():
        if found := pattern.fullmatch(line):
            return name, found.groupdict()
    raise ParseError(*where, expected)


def classify(text: str, patterns: Patterns, expected: str) -> Iterator[tuple[str, Row, Where]]:
    """Yield for each line the first pattern that fits all of it: its name, its groups, and where.

    Empty lines are passed over. Raises ParseError for a line that no pattern fits, and as `lines` does.
    """
    for where in lines(text):
        name, found = match(where, where[1], patterns, expected)
        yield name, found, where


def is_number(text: str) -> bool:
    """Whether text is a whole number that a column can hold."""
    return re.fullmatch(NUMBER, text) is not None


def counter(text: str) -> int | None:
    """Read a counter that iptables or ipvsadm may have shortened: 12K is 12000.

    None when the text is no counter, or one that no column can hold.
    """
    found = _COUNTER.fullmatch(text)
    if found is None:
        return None
    value = int(found[1]) * _FACTORS[found[2]]
    return value if value <= _LARGEST else None


@lru_cache(maxsize=4096)  # a table says the same few addresses again and again
def is_address(text: str) -> bool:
    """Whether text is a numeric IP address, with its zone or without (`fe80::1%eth0`)."""
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def check_address(text: str, where: Where, tool: str) -> str:
    """Return a numeric IP address; raises ParseError for anything else, such as a name.

    ``tool`` is the command with the flag that makes it print numbers.
    """
    if not is_address(text):
        raise ParseError(*where, f"an IP address in the place of {shown(text)}", hint=numeric(tool))
    return text


def numeric(tool: str) -> str:
    """Return the hint for a name where a number is read: which flag makes the tool print numbers."""
    return f"names cannot be read: run `{tool}`, which prints numeric addresses and ports"


def endpoint(text: str, where: Where, tool: str) -> tuple[str | None, int | None]:
    """Split `address:port`; an absent address, and port 0 or *, become None.

    Raises ParseError for names in the place of numbers; ``tool`` is the command that prints numbers.
    """
    found = _ENDPOINT.fullmatch(text)
    expected = f"a line of `{tool}`, with a numeric address:port in the place of {shown(text)}"
    if found is None:
        raise ParseError(*where, expected, hint=numeric(tool))
    address = found["bare"] if found["inner"] is None else found["inner"] + (found["zone"] or "")
    port = 0 if found["port"] == "*" else int(found["port"])
    if not (address in ("", "*") or is_address(address)) or port > 65_535:
        raise ParseError(*where, expected, hint=numeric(tool))
    return address or None, port or None
