"""What the tests of the parsers share: captured output with its golden tables, and small examples.

A file tests/captures/<docker version>/<tool>--<place>-<case>.txt holds `$ ` and the argv as a JSON
list, then what the command printed on a real node. Its golden table, the rows that are expected, is in
<the same name>.json for the parser that `parse` picks, and in <the same name>.<parser>.json for another
parser. After a change that is meant, write them again with LABKIT_WRITE_GOLDENS=1 and read the
difference by eye.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from labkit.parsers import ParseError, parse
from labkit.schema import Row

if TYPE_CHECKING:
    import pandas as pd

CAPTURES = Path(__file__).parents[2] / "captures"
CAPTURED = sorted(CAPTURES.glob("*/*.txt"))

Example = tuple[str, str, list[Row]]
"""A command, what it printed, and the rows that it gives, in the columns that matter here."""
Refused = tuple[str, str, str]
"""A command, what it printed, and a pattern for the message of the ParseError."""

WHOAMI = json.dumps(
    {
        "container": "c1",
        "node": "node2",
        "addresses": ["10.0.0.7", "10.0.1.5"],
        "client": "10.0.0.2",
    }
)


def records(table: pd.DataFrame) -> list[Row]:
    """Return the rows as plain JSON values, absent ones as None."""
    found = json.loads(table.to_json(orient="records"))
    assert isinstance(found, list)
    return found


def read_capture(path: Path) -> tuple[list[str], str]:
    """Return the argv of a captured command, and what it printed."""
    first, _, text = path.read_text().partition("\n")
    return json.loads(first.removeprefix("$ ")), text


def captures_of(module: str) -> list[Path]:
    """Return the captures that a file of labkit/parsers reads: their names begin with its name."""
    prefix = module.replace("_", "-")
    return [path for path in CAPTURED if path.name.startswith(prefix)]


def each_capture_of(module: str, case: str = "") -> pytest.MarkDecorator:
    """Run a test on each of these captures, or on those whose name has a text in it."""
    paths = [path for path in captures_of(module) if case in path.name]
    return pytest.mark.parametrize(
        "path", paths, ids=[f"{path.parent.name}/{path.stem}" for path in paths]
    )


def each_example(examples: Sequence[Example]) -> pytest.MarkDecorator:
    """Run a test on each of these examples."""
    ids = [example[0] for example in examples]
    return pytest.mark.parametrize(("command", "text", "expected"), examples, ids=ids)


def each_refused(refused: Sequence[Refused]) -> pytest.MarkDecorator:
    """Run a test on each of these texts, which are no output of their command."""
    ids = [f"{command}: {message}" for command, _, message in refused]
    return pytest.mark.parametrize(("command", "text", "message"), refused, ids=ids)


def check_golden(path: Path, parser: Callable[[str], pd.DataFrame] | None = None) -> None:
    """Compare a capture's table with the golden one, by a parser or by the one that `parse` picks."""
    argv, text = read_capture(path)
    found = records(parse(argv, text) if parser is None else parser(text))
    golden = path.with_suffix(".json" if parser is None else f".{parser.__name__}.json")
    if os.environ.get("LABKIT_WRITE_GOLDENS"):
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in found)
        golden.write_text(f"[\n{lines}\n]\n")
    assert found == json.loads(golden.read_text())


def check_rows(command: str, text: str, expected: list[Row]) -> None:
    """Check that a command's output gives these rows, in the columns that are named."""
    found = records(parse(shlex.split(command), text))
    shown = [{name: row[name] for name in wanted} for row, wanted in zip(found, expected, strict=True)]
    assert shown == expected


def check_refused(command: str, text: str, message: str) -> None:
    """Check that a command's output raises ParseError, with a message that fits a pattern."""
    with pytest.raises(ParseError, match=message):
        parse(shlex.split(command), text)
