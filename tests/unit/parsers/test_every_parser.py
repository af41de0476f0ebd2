"""What holds for every parser: declared columns, an example, goldens on each Docker version, speed."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit import parsers
from labkit.engines import versions
from labkit.parsers import ParseError, dispatch
from labkit.schema import Schema, schema_of
from tests.unit.parsers.helpers import CAPTURED, CAPTURES, captures_of, read_capture

if TYPE_CHECKING:
    import pandas as pd

Parser = Callable[..., "pd.DataFrame"]

PARSERS: dict[str, Parser] = {
    name: getattr(parsers, name)
    for name in parsers.__all__
    if isinstance(getattr(getattr(parsers, name), "schema", None), Schema)
}
FOLDER = Path(parsers.__file__).parent
MODULES = sorted(
    path.stem
    for path in FOLDER.glob("*.py")
    if not path.name.startswith("_") and path.stem != dispatch.__name__.rpartition(".")[2]
)
# `parse` picks another parser for their commands: who wants these calls them.
ASKED_FOR = {"ping_replies": "ping reads the summary", "whoami": "curl reads any body"}


def picked(argv: list[str]) -> Parser | None:
    """Return the parser that `parse` picks, without what the command's words tell it."""
    parser = dispatch.parser_of(argv)
    return parser.func if isinstance(parser, partial) else parser


def example(name: str) -> tuple[str, str]:
    """Return the command and the output of the example in a parser's docstring."""
    found = re.search(r"^Example::\n((?:\n|    .*\n)+)", PARSERS[name].__doc__ or "", re.MULTILINE)
    assert found, f"{name} has no example"
    command, _, text = textwrap.dedent(found[1]).strip().partition("\n")
    return command.removeprefix("$ "), f"{text}\n"


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_parser_its_goldens_and_its_tests_have_one_name(module: str) -> None:
    assert any(parser.__module__ == f"labkit.parsers.{module}" for parser in PARSERS.values())
    assert (Path(__file__).parent / f"test_{module}.py").is_file()
    # whoami is no command: its output is what curl prints.
    assert captures_of(module) or module == "whoami"


def test_every_capture_is_read_by_the_parser_of_its_name() -> None:
    for path in CAPTURED:
        parser = picked(read_capture(path)[0])
        assert parser is not None
        assert path in captures_of(parser.__module__.rpartition(".")[2])


def test_every_golden_has_the_capture_that_it_comes_of() -> None:
    for path in CAPTURES.glob("*/*.json"):
        capture, _, parser = path.stem.partition(".")
        assert path.with_name(f"{capture}.txt").is_file()
        assert not parser or parser in ASKED_FOR


@pytest.mark.parametrize("docker", versions.shipped())
@pytest.mark.parametrize("name", PARSERS)
def test_every_parser_has_goldens_on_every_version(name: str, docker: str) -> None:
    if name in ASKED_FOR:
        goldens = list((CAPTURES / docker).glob(f"*.{name}.json"))
    else:
        here = (path for path in CAPTURED if path.parent.name == docker)
        found = (path for path in here if picked(read_capture(path)[0]) is PARSERS[name])
        goldens = [path.with_suffix(".json") for path in found]
    assert any(json.loads(path.read_text()) for path in goldens)


# --- the columns ---------------------------------------------------------------------------------


def test_every_parser_is_public() -> None:
    found = {
        name
        for module in MODULES
        for name, value in vars(sys.modules[f"labkit.parsers.{module}"]).items()
        if isinstance(getattr(value, "schema", None), Schema)
    }
    assert found == PARSERS.keys()


@pytest.mark.parametrize("name", PARSERS)
def test_every_column_says_what_it_means(name: str) -> None:
    schema = schema_of(PARSERS[name])
    assert schema.columns
    assert not [column.name for column in schema.columns if not column.meaning]
    assert not {"node", "place", "trial"} & schema.dtypes.keys()


@pytest.mark.parametrize("name", PARSERS)
def test_the_docstring_shows_the_declared_columns(name: str) -> None:
    shown = (PARSERS[name].__doc__ or "").partition("Columns::\n\n")[2]
    assert textwrap.dedent(shown).rstrip("\n") == schema_of(PARSERS[name]).text()
    assert inspect.signature(PARSERS[name]).return_annotation == "pd.DataFrame"


@pytest.mark.parametrize("name", PARSERS)
def test_empty_text_gives_an_empty_table_with_its_columns(name: str) -> None:
    table = PARSERS[name]("")
    assert len(table) == 0
    assert {column: str(dtype) for column, dtype in table.dtypes.items()} == parsers.columns(
        PARSERS[name]
    )


@pytest.mark.parametrize("name", PARSERS)
def test_the_example_is_real_and_gives_rows_of_the_declared_types(name: str) -> None:
    command, text = example(name)
    argv = shlex.split(command)
    assert name in ASKED_FOR or picked(argv) is PARSERS[name]
    table = PARSERS[name](text) if name in ASKED_FOR else parsers.parse(argv, text)
    assert len(table) > 0
    assert table.dtypes.equals(PARSERS[name]("").dtypes)
    # Docstrings have neither tabs nor spaces at a line's end; the tools print both.
    printed = {
        tuple(line.split())
        for path in CAPTURED
        if path.name.startswith(argv[0])
        for line in read_capture(path)[1].splitlines()
    }
    assert not [line for line in text.splitlines() if tuple(line.split()) not in printed]


@pytest.mark.parametrize("name", sorted(PARSERS.keys() - {"curl"}))
def test_a_garbled_line_is_named(name: str) -> None:
    # curl's output is whatever a server sends, so that it has no garbled lines.
    with pytest.raises(ParseError, match=r"line 2: expected .*, found '\? what is this'") as caught:
        PARSERS[name]("\n? what is this\n")
    assert caught.value.number == 2
    assert caught.value.line == "? what is this"


# --- without docstrings, and with a lot to read --------------------------------------------------

_WITHOUT_DOCSTRINGS = """
import json, sys
from pathlib import Path
from labkit import parsers
if __doc__ or parsers.parse.__doc__ or parsers.ss.__doc__.partition("\\n")[0] != "Columns::":
    sys.exit("there are docstrings")
for path in map(Path, sys.argv[1:]):
    first, _, text = path.read_text().partition("\\n")
    table = parsers.parse(json.loads(first[2:]), text)
    if json.loads(table.to_json(orient="records")) != json.loads(path.with_suffix(".json").read_text()):
        sys.exit(f"{path}: another table")
print("the same tables")
"""


def test_the_tables_are_the_same_without_docstrings() -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-c", _WITHOUT_DOCSTRINGS, *map(str, CAPTURED)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("the same tables\n", "")


def seconds(read: Callable[[str], Any], text: str) -> float:
    """Measure the processor's time, since the machine may have other work."""
    began = time.process_time()
    read(text)
    return time.process_time() - began


def is_linear(read: Callable[[str], Any], texts: Iterable[str]) -> bool:
    """Whether four times the text takes less than eight times the time: a square would be sixteen."""
    once, fourfold = (min(seconds(read, text) for _ in range(2)) for text in texts)
    return fourfold < 8 * once + 0.05


@pytest.mark.parametrize("name", PARSERS)
def test_a_long_text_is_read_in_linear_time(name: str) -> None:
    _, text = example(name)
    many = 100_000 // len(text)
    assert is_linear(PARSERS[name], (text * many, text * many * 4))


@pytest.mark.parametrize("name", PARSERS)
def test_a_long_line_is_refused_in_linear_time(name: str) -> None:
    def read(text: str) -> None:
        with contextlib.suppress(ParseError):
            PARSERS[name](text)

    # Parts that some pattern may match again and again.
    for part in ("x", "x ", "1 ", "1", ":", "1:", "a.", "From ", '"', "\\", "inet scope "):
        line = "1 " + part * (5_000 // len(part))
        assert is_linear(read, (line, line * 4)), part


@pytest.mark.parametrize("character", ["\U000e0001", "\0", "x"])
def test_a_message_shows_as_much_of_a_line_as_a_person_would_read(character: str) -> None:
    problem = ParseError(1, character * 5_000, "a route")
    assert len(problem.args[0]) < 450
    assert "…" in problem.args[0]
