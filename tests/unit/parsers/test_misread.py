"""Outputs that parsers once read wrong, crashed on or took long for: the right rows, or a ParseError.

In misread.json each has the command as it was typed (`@NAME` is the parser of that name), the text that
it printed (or parts of the text, each with how often it is repeated), and either `rows`, in the columns
that matter, or `refused`, a pattern for the message. The addresses are invented.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from labkit import parsers
from labkit.errors import CommandFailed, UsageError
from labkit.parsers import ParseError, parse
from tests.unit.parsers.helpers import records
from tests.unit.parsers.test_every_parser import PARSERS

if TYPE_CHECKING:
    import pandas as pd

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("misread.json").read_text())


def text_of(case: dict[str, Any]) -> str:
    """Return what the command printed."""
    text: str | list[tuple[str, int]] = case["text"]
    return text if isinstance(text, str) else "".join(part * times for part, times in text)


def reader_of(case: dict[str, Any]) -> Callable[[str], pd.DataFrame]:
    """Return what reads the output of a case."""
    command: str = case["command"]
    if command.startswith("@"):
        parser: Callable[[str], pd.DataFrame] = getattr(parsers, command[1:])
        return parser
    return lambda text: parse(shlex.split(command), text)


def each(kind: str) -> pytest.MarkDecorator:
    """Run a test on each case that has `rows`, or on each that is `refused`."""
    cases = [case for case in CASES if kind in case]
    return pytest.mark.parametrize("case", cases, ids=[case["case"] for case in cases])


def test_each_case_has_one_right_value_and_a_name_of_its_own() -> None:
    assert all(("rows" in case) != ("refused" in case) for case in CASES)
    assert len({case["case"] for case in CASES}) == len(CASES)


@each("rows")
def test_output_is_read_right(case: dict[str, Any]) -> None:
    began = time.process_time()
    found = records(reader_of(case)(text_of(case)))
    assert time.process_time() - began < 1
    assert len(found) == len(case["rows"])
    for row, wanted in zip(found, case["rows"], strict=True):
        assert {name: row[name] for name in wanted} == wanted


@each("refused")
def test_output_is_refused(case: dict[str, Any]) -> None:
    began = time.process_time()
    with pytest.raises(ParseError) as caught:
        reader_of(case)(text_of(case))
    assert time.process_time() - began < 1
    assert re.search(case["refused"], str(caught.value))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", sorted(PARSERS.keys() - {"curl"}))
def test_half_a_character_is_refused_with_its_line(name: str) -> None:
    with pytest.raises(ParseError, match="line 2: expected text, without halves"):
        PARSERS[name]("\n\ud800\n")


def test_half_a_character_in_a_body_is_replaced() -> None:
    assert list(parsers.curl("a\ud800\n")["body"]) == ["a\N{REPLACEMENT CHARACTER}"]


# --- commands that failed ------------------------------------------------------------------------


def test_a_command_that_only_complained_has_no_table() -> None:
    with pytest.raises(
        CommandFailed, match=r"on hello-a\.1: `ip neigh` ended with code 1\nCannot open"
    ):
        parse(["ip", "neigh"], "", "Cannot open netlink socket\n", code=1, place="hello-a.1")


@pytest.mark.parametrize(
    ("command", "stderr", "code"),
    [
        ("ip neigh", "", 1),
        ("ip neigh", "a warning\n", 0),
        ("timeout 3 tcpdump -n", "listening on eth0\n0 packets captured\n", 124),
    ],
)
def test_a_command_that_found_nothing_has_an_empty_table(command: str, stderr: str, code: int) -> None:
    assert len(parse(shlex.split(command), "", stderr, code=code)) == 0


def test_what_a_command_printed_counts_although_it_failed() -> None:
    table = parse(["ping", "a"], "3 packets transmitted, 0 received, 100% packet loss\n", "x\n", code=1)
    assert list(table["received"]) == [0]


def test_curl_before_7_75_has_its_exit_code_from_its_process() -> None:
    (case,) = (case for case in CASES if case["case"].startswith("curl 7.74"))
    (row,) = records(parse(shlex.split(case["command"]), text_of(case), "curl: (18) cut\n", code=18))
    assert (row["exit_code"], row["exit_meaning"], row["error"]) == (18, "answer cut short", "cut")


def test_the_timeouts_of_the_load_balancer_are_no_table() -> None:
    with pytest.raises(UsageError, match="no parser for `ipvsadm -l --timeout`"):
        parse(["ipvsadm", "-l", "--timeout"], "Timeout (tcp tcpfin udp): 900 120 300\n")
