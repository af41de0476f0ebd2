"""`nslookup`: answers, pointers, and every way to fail."""

from __future__ import annotations

from pathlib import Path

from labkit.schema import Row
from tests.unit.parsers.helpers import Example, check_golden, check_rows, each_capture_of, each_example

NSLOOKUP = """\
;; communications error to 127.0.0.11#53: timed out
Server:\t\t127.0.0.11
Address:\t127.0.0.11#53

Non-authoritative answer:
Name:\ttasks.hello-a
Address: 10.0.1.5
Name:\ttasks.hello-a
Address: 10.0.1.6
** server can't find tasks.hello-a: SERVFAIL

"""

EXAMPLES: list[Example] = [
    (
        "nslookup tasks.hello-a",
        NSLOOKUP,
        [
            {"server": "127.0.0.11", "server_port": 53, "type": "A", "answer": "10.0.1.5"},
            {"name": "tasks.hello-a", "answer": "10.0.1.6", "status": "NOERROR"},
            {"name": "tasks.hello-a", "answer": None, "status": "SERVFAIL"},
        ],
    ),
    (
        "nslookup nobody",
        ";; connection timed out; no servers could be reached\n\n",
        [{"server": None, "answer": None, "status": "TIMEOUT"}],
    ),
    (
        "nslookup 10.0.1.5",
        "5.1.0.10.in-addr.arpa\tname = hello-a.1.abc.my-overlay.\n\n",
        [{"type": "PTR", "answer": "hello-a.1.abc.my-overlay."}],
    ),
]


@each_capture_of("nslookup")
def test_captured_output_gives_the_golden_table(path: Path) -> None:
    check_golden(path)


@each_example(EXAMPLES)
def test_example_gives_the_expected_rows(command: str, text: str, expected: list[Row]) -> None:
    check_rows(command, text, expected)
