"""Outputs that no tool printed, made of captured ones by changes, and what must hold for every one.

`changed` takes a source of choices, so that hypothesis, a seeded generator and a fuzzer all drive it.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from labkit.parsers import ParseError, columns
from tests.unit.parsers.helpers import CAPTURED, read_capture
from tests.unit.parsers.test_every_parser import ASKED_FOR, PARSERS, example, picked
from tests.unit.parsers.test_misread import CASES, text_of

Choose = Callable[[int], int]
"""Given n, a whole number from 0 to n - 1."""

LIMIT_S = 1.0
"""What one output may take: processor time, since the machine may have other work."""
_LONGEST = 4_000  # characters: long outputs are tests of their own
_WORDS = (
    # Numbers that are none, or that no column holds; digits of other scripts.
    *(
        "9" * 19,
        "9" * 5_000,
        "-1",
        "0x1f",
        "1.2.3",
        "1e999",
        "\u0661\u0662",
        "\u00b2",
        "NaN",
        "Infinity",
    ),
    # Addresses and names where the other is expected.
    *(
        "10.",
        "999.1.1.1",
        "::1",
        "fe80::1%eth0",
        "::ffff:10.0.0.1.80",
        "[::1]:80",
        ":",
        "*:*",
        "web:http",
    ),
    # JSON of another shape.
    *("null", "[]", "{}", '"\\ud800"', "[" * 300, '{"a":' * 50, "true", "1.5", "[1]", '{"ifname":1}'),
    # Characters that split or end what a pattern takes for one word.
    *(
        "\0",
        "\r",
        "\r\n",
        "\x0b",
        "\x1c",
        "\u2028",
        "\u00a0",
        "\ufeff",
        "\ud800",
        "\\",
        '"',
        "'",
        "`",
        "$(",
    ),
    *("\n", "\n\n", "\t", "  ", " " * 200, "(" * 200, ": " * 100, "a." * 100, "1 " * 100),
)
_WORD = re.compile(r"[0-9]+|[^\W\d]+|\s+|[^\w\s]", re.ASCII)
_SURROGATE = re.compile("[\ud800-\udfff]")


def choices(data: bytes) -> Choose:
    """Return choices that bytes make, two for each; when there are no more, the first one of all."""
    numbers = iter(data)

    def choose(n: int) -> int:
        return (next(numbers, 0) << 8 | next(numbers, 0)) % n

    return choose


@cache
def _captured() -> list[tuple[str, object, str]]:
    """Return what was captured: the tool, the parser that `parse` picks, the beginning of the text."""
    found = []
    for argv, text in map(read_capture, CAPTURED):
        short = text[: text.rfind("\n", 0, _LONGEST) + 1] or text[:_LONGEST]
        found.append((argv[0], picked(argv), short))
    return found


@cache
def seeds(name: str) -> tuple[str, ...]:
    """Return outputs that a parser reads or has misread: its example, captures, cases."""
    parser = PARSERS[name]
    found = [example(name)[1]]
    asked_for = example(name)[0].split()[0] if name in ASKED_FOR else None
    found += [text for tool, reader, text in _captured() if reader is parser or tool == asked_for]
    for case in CASES:
        command = case["command"]
        if command == f"@{name}" or (command[0] != "@" and picked(shlex.split(command)) is parser):
            found.append(text_of(case)[:_LONGEST])
    return tuple(dict.fromkeys(found))


@cache
def words(name: str) -> tuple[str, ...]:
    """Return the words of a parser's outputs, each once."""
    return tuple(dict.fromkeys(word for text in seeds(name) for word in _WORD.findall(text)))


def changed(name: str, choose: Choose) -> str:
    """Return an output for a parser: one of its own after a few changes, or words of them at random."""
    if choose(8) == 0:
        known = words(name)
        return "".join(known[choose(len(known))] for _ in range(choose(60)))
    text = seeds(name)[choose(len(seeds(name)))]
    for _ in range(1 + choose(4)):
        text = _CHANGES[choose(len(_CHANGES))](name, text, choose)
    return text[: 4 * _LONGEST]


def _change_lines(name: str, text: str, choose: Choose) -> str:
    """Drop, double, swap or move in a line."""
    lines = text.splitlines(keepends=True) or [""]
    at, other = choose(len(lines)), choose(len(lines))
    what = choose(4)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines[at:at] = lines[at : at + 1] * (1 + choose(3))
    elif what == 2:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        foreign = seeds(name)[choose(len(seeds(name)))].splitlines(keepends=True) or [""]
        lines.insert(at, foreign[choose(len(foreign))])
    return "".join(lines)


def _change_words(name: str, text: str, choose: Choose) -> str:
    """Put another word, a known or a hostile one, in the place of one or before it; or drop one."""
    found = list(_WORD.finditer(text))
    if not found:
        return _pick(name, choose)
    word = found[choose(len(found))]
    new = _pick(name, choose) if choose(4) else ""
    return text[: word.start()] + new + text[word.end() if choose(3) else word.start() :]


def _change_numbers(name: str, text: str, choose: Choose) -> str:
    """Change a digit, or put a hostile number in the place of a number."""
    found = list(re.finditer("[0-9]+", text))
    if not found:
        return text
    number = found[choose(len(found))]
    new = _WORDS[choose(10)] if choose(2) else str(choose(10))
    return text[: number.start()] + new + text[number.end() :]


def _cut(name: str, text: str, choose: Choose) -> str:
    """Stop in the middle, or lose the beginning."""
    at = choose(len(text) + 1)
    return text[:at] if choose(3) else text[at:]


def _repeat(name: str, text: str, choose: Choose) -> str:
    """Say a few characters again and again."""
    at = choose(len(text) + 1)
    part = text[at : at + 1 + choose(12)]
    return text[:at] + part * choose(400) + text[at:]


def _pick(name: str, choose: Choose) -> str:
    known: Sequence[str] = words(name) if choose(2) else _WORDS
    return known[choose(len(known))]


_CHANGES: tuple[Callable[[str, str, Choose], str], ...] = (
    *(_change_lines, _change_words, _change_words, _change_numbers, _cut, _repeat),
)


def check(name: str, text: str) -> str:
    """Read one output: `table` or `refused`. Raises AssertionError for all else, and for slowness."""
    began = time.thread_time()
    try:
        table = PARSERS[name](text)
        outcome = "table"
    except ParseError as problem:
        outcome = "refused"
        _check_line(name, text, problem)
    except Exception as problem:
        raise AssertionError(f"{name}: {problem!r}") from problem
    seconds = time.thread_time() - began
    assert seconds < LIMIT_S, f"{name}: {seconds:.1f} s for {len(text)} characters"
    if outcome == "table":
        assert {column: str(dtype) for column, dtype in table.dtypes.items()} == columns(PARSERS[name])
        table.to_json(orient="records").encode()  # a file can hold it
    return outcome


def _check_line(name: str, text: str, problem: ParseError) -> None:
    """Check that an error names a line of the text, by its number and by what it says."""
    lines = text.split("\n")
    assert 1 <= problem.number <= len(lines), f"{name}: there is no line {problem.number}"
    # A body's halves of characters are replaced before it is read.
    wanted, found = (
        _SURROGATE.sub("\ufffd", part)
        for part in (problem.line.split("\n")[0], lines[problem.number - 1])
    )
    assert wanted in found, f"{name}: line {problem.number} is {found!r}, not {wanted!r}"
    assert len(str(problem)) < 2_000, (
        f"{name}: nobody reads a message of {len(str(problem))} characters"
    )


def long_outputs(name: str, size: int) -> Iterator[str]:
    """Yield outputs of about a size: an example again and again, and parts that a pattern may repeat.

    Those parts make one line each, behind the beginnings of lines that the parser knows.
    """
    text = example(name)[1]
    yield text * (size // len(text))
    for part in ("x", "x ", "1 ", "1", ":", "1:", "a.", "From ", '"', "\\", "(", "inet scope ", ", "):
        yield part * (size // len(part)) + "\n"
    for line in dict.fromkeys(text.splitlines()):
        middle = len(line) // 2
        yield text + line[:middle] + " :" * (size // 2) + "\n"
        if line[middle:]:
            yield text + line[:middle] + line[middle:] * (size // len(line[middle:])) + "\n"
